use super::{testing::*, *};

#[tokio::test]
async fn what_does_not_fit_memory_lies_in_a_file() {
    let (growing, _directory) = growing(4000, 1 << 20);
    let late = growing.reader().expect("whole");
    for chunk in chunks() {
        growing.push(chunk).await.expect("room");
        assert!(growing.state.lock().chunks.weight() <= 5000, "memory stays bounded");
    }
    assert_eq!(growing.contiguous(&Bytes::new()).await.expect("readable").to_vec(), expected());
    let newcomer = growing.reader().expect("the first byte is in the file");
    growing.complete(Bytes::new(), None, None);
    assert_eq!(all(late).await.expect("complete"), expected());
    assert_eq!(all(newcomer.only(1500, 2499)).await.expect("complete"), expected()[1500..2500]);
    assert!(growing.spill.bytes() > 0);
}

#[tokio::test]
async fn without_room_the_slowest_reader_sets_the_pace() {
    let (growing, _directory) = growing(4000, 6000);
    let (slow, fast) = (growing.reader().expect("whole"), growing.reader().expect("whole"));
    let writing = write_out(&growing, chunks());
    let fast = tokio::spawn(all(fast));
    while growing.state.lock().whole {
        tokio::task::yield_now().await;
    }
    assert!(growing.reader().is_none(), "the first byte may be gone");
    assert!(growing.contiguous(&Bytes::new()).await.is_none(), "not to be stored");
    assert!(!writing.is_finished(), "the writer waits for the slow one");
    assert_eq!(all(slow).await.expect("complete"), expected());
    assert_eq!(fast.await.expect("no panic").expect("complete"), expected());
    writing.await.expect("no panic");
    drop(growing);
}

#[tokio::test]
async fn nobody_waits_for_a_reader_for_a_tier() {
    let (growing, _directory) = growing(4000, 6000);
    let (client, idle) = (growing.reader().expect("whole"), growing.reader_for_tier().expect("whole"));
    assert_eq!(growing.readers(), 1);
    let writing = write_out(&growing, chunks());
    assert_eq!(all(client).await.expect("complete"), expected());
    writing.await.expect("no panic");
    assert!(matches!(*all(idle).await.expect_err("not kept for it"), Failure::GivenUp));
}

#[tokio::test]
async fn a_reader_for_a_tier_keeps_a_complete_body_and_not_a_fill() {
    let (growing, _directory) = growing(4000, 1 << 20);
    let (client, idle) = (growing.reader().expect("whole"), growing.reader_for_tier().expect("whole"));
    let reading = growing.reader_for_tier().expect("whole");
    write_out(&growing, chunks()).await.expect("no panic");
    for reader in [client, reading] {
        assert_eq!(all(reader).await.expect("complete"), expected());
    }
    let late = growing.reader().expect("kept from the first byte");
    assert_eq!(all(late).await.expect("complete"), expected());
    growing.abandoned().await;
    drop(idle);
}

#[tokio::test]
async fn what_is_not_kept_is_not_spilled() {
    let (growing, _directory) = growing(4000, 1 << 20);
    let (mut slow, fast) = (growing.reader().expect("whole"), growing.reader().expect("whole"));
    let mut chunks = chunks();
    for chunk in chunks.by_ref().take(32) {
        growing.push(chunk).await.expect("room");
    }
    let spilled = growing.spill.bytes();
    assert!(spilled > 20_000, "the older part is in the file");

    growing.stop_keeping();
    assert!(growing.reader().is_none(), "nobody can join what is about to be dropped");
    assert!(growing.contiguous(&Bytes::new()).await.is_none(), "not to be stored");
    let writing = write_out(&growing, chunks);
    let fast = tokio::spawn(all(fast));
    let mut read = Vec::new();
    while (read.len() as u64) < spilled {
        read.extend(frame(&mut slow).await.expect("more").expect("what is in the file can be read"));
        assert!(growing.spill.bytes() <= spilled, "nothing more goes to the file");
        assert!(growing.state.lock().chunks.weight() <= 6000, "memory stays bounded");
    }
    assert!(!writing.is_finished(), "the writer waits for the slow one");
    while let Some(data) = frame(&mut slow).await {
        read.extend(data.expect("complete"));
        assert!(growing.spill.bytes() <= spilled, "nothing more goes to the file");
    }
    assert_eq!(read, expected());
    assert_eq!(fast.await.expect("no panic").expect("complete"), expected());
    writing.await.expect("no panic");
    assert_eq!(growing.spill.bytes(), 0, "a file that all have passed is given back");
}

/// The last piece is there for the readers at once; it does not stay in memory for the slowest of them.
#[tokio::test]
async fn where_all_hold_too_much_the_last_piece_spills_too() {
    for (before, read) in [(0, false), (10, false), (10, true)] {
        let memory = Memory::new(100_000);
        let (growing, _directory) = growing_in(&memory, 1 << 20, 1 << 20);
        let mut reader = growing.reader().expect("whole");
        for chunk in large_chunks().take(before) {
            growing.push(chunk).await.expect("room");
        }
        growing.complete(vec![b'x'; 200_000].into(), None, None);
        assert!(memory.is_short());
        let mut got = Vec::new();
        if read {
            got.extend(frame(&mut reader).await.expect("more").expect("complete"));
        }
        growing.spill_rest().await;
        assert_eq!(memory.held(), 0, "after {before} pieces");
        got.extend(all(reader).await.expect("complete"));
        let expected: Vec<u8> = large_chunks().take(before).flatten().chain(vec![b'x'; 200_000]).collect();
        assert!(got == expected, "after {before} pieces");
        assert_eq!(growing.spill.bytes(), 0, "what all have read is given back");
    }
}

#[tokio::test]
async fn a_file_given_back_while_the_rest_spills_takes_nothing_along() {
    let memory = Memory::new(0);
    let (growing, _directory) = growing_in(&memory, 1 << 20, 1 << 20);
    let mut reader = growing.reader().expect("whole");
    for chunk in large_chunks().take(10) {
        growing.push(chunk).await.expect("room");
    }
    let (first, second) = (Bytes::from(vec![b'x'; 50_000]), Bytes::from(vec![b'y'; 50_000]));
    growing.state.lock().chunks.push(first.clone());
    growing.complete(second.clone(), None, None);
    let file = match &growing.state.lock().mode {
        Mode::Spilled(file) => Arc::clone(file),
        Mode::Memory => panic!("it spilled"),
    };
    let mut got = Vec::new();
    while got.len() <= 100_000 {
        got.extend(frame(&mut reader).await.expect("more").expect("complete"));
    }
    growing.forget_spilled(&file, 200_000);
    got.extend(all(reader).await.expect("complete"));
    assert!(got == large_chunks().take(10).flatten().chain(first).chain(second).collect::<Vec<u8>>());
    drop(file);
    assert_eq!(growing.spill.bytes(), 0, "what all have read is given back");
}

/// Pieces of 10 kB, too large to be copied.
fn large_chunks() -> impl Iterator<Item = Bytes> + Send + 'static {
    (0..64_u8).map(|number| Bytes::from(vec![number; 10_000]))
}

#[tokio::test]
async fn where_all_hold_too_much_a_body_spills_at_once() {
    let memory = Memory::new(100_000);
    let (growing, _directory) = growing_in(&memory, 1 << 20, 1 << 20);
    let reader = growing.reader().expect("whole");
    let others = memory.reserve(90_000).expect("room");
    for chunk in large_chunks() {
        growing.push(chunk).await.expect("room");
        assert!(memory.held() <= 90_000 + MEMORY_MIN, "{} bytes in memory", memory.held());
    }
    assert!(growing.spill.bytes() > 600_000);
    drop(others);
    let whole = growing.contiguous(&Bytes::new()).await.expect("readable");
    growing.complete(Bytes::new(), Some(whole.clone()), None);
    assert!(memory.held() <= MEMORY_MIN, "a large body is not kept in memory for its readers");
    assert_eq!(all(reader).await.expect("complete"), whole);
    assert_eq!(growing.spill.bytes(), 0, "what all have read is given back");
    drop(growing);
    assert_eq!(memory.held(), 0);
}

#[tokio::test]
async fn a_window_holds_one_piece_where_all_hold_too_much() {
    let memory = Memory::new(0);
    let (growing, _directory) = growing_in(&memory, 1 << 20, 0);
    let mut reader = growing.reader().expect("whole");
    let writing = write_out(&growing, large_chunks());
    let mut read = Vec::new();
    while let Some(data) = frame(&mut reader).await {
        read.extend(data.expect("complete"));
        assert!(memory.held() <= 2 * MEMORY_MIN, "{} bytes in memory", memory.held());
    }
    writing.await.expect("no panic");
    assert!(read == large_chunks().flatten().collect::<Vec<u8>>());
}

#[tokio::test]
async fn a_small_body_spills_to_no_file() {
    let memory = Memory::new(0);
    let (growing, _directory) = growing_in(&memory, 1 << 20, 1 << 20);
    let reader = growing.reader().expect("whole");
    for chunk in chunks().take(10) {
        growing.push(chunk).await.expect("room");
    }
    assert_eq!(growing.spill.bytes(), 0);
    let whole = growing.contiguous(&Bytes::new()).await.expect("in memory");
    growing.complete(Bytes::new(), Some(whole.clone()), None);
    assert_eq!(reader.at_once(), Some(whole), "shared with where it is stored");
}

#[tokio::test]
async fn what_the_slowest_has_read_of_a_complete_body_goes() {
    let memory = Memory::new(1 << 20);
    let (growing, _directory) = growing_in(&memory, 1 << 20, 0);
    let (mut slow, fast) = (growing.reader().expect("whole"), growing.reader().expect("whole"));
    for chunk in large_chunks() {
        growing.push(chunk).await.expect("room");
    }
    growing.complete(Bytes::new(), growing.contiguous(&Bytes::new()).await, None);
    assert_eq!(all(fast).await.expect("complete").len(), 640_000);
    let mut left = memory.held();
    assert!(left > 640_000);
    while let Some(data) = frame(&mut slow).await {
        data.expect("complete");
        assert!(memory.held() < left, "piece by piece");
        left = memory.held();
    }
    assert!(growing.reader().is_none(), "the first byte is gone");
    assert_eq!(left, 0);
}

/// With the last piece held back, what is stored has it before any reader does.
#[tokio::test]
async fn the_last_piece_is_stored_before_it_is_seen() {
    for (memory_max, file_max, pieces) in [(1 << 20, 0, 0), (1 << 20, 0, 1), (1 << 20, 0, 64), (20_000, 1 << 20, 64)] {
        let (growing, _directory) = growing(memory_max, file_max);
        let reader = growing.reader().expect("whole");
        let mut expected = Vec::new();
        for chunk in large_chunks().take(pieces) {
            expected.extend_from_slice(&chunk);
            growing.push(chunk).await.expect("room");
        }
        let last = Bytes::from_static(b"last");
        let whole = growing.contiguous(&last).await.expect("readable");
        assert_eq!(growing.len(), expected.len() as u64, "nobody sees it yet");
        expected.extend_from_slice(&last);
        assert!(whole == expected, "{pieces} pieces");
        growing.complete(last, Some(whole), None);
        assert!(all(reader).await.expect("complete") == expected, "{pieces} pieces");
    }
}

#[tokio::test]
async fn pieces_without_content_leave_nothing() {
    let (growing, _directory) = growing(100, 0);
    let reader = growing.reader().expect("whole");
    for _ in 0..10_000 {
        growing.push(Bytes::new()).await.expect("room");
    }
    growing.push(Bytes::from_static(b"a")).await.expect("room");
    growing.complete(Bytes::new(), None, None);
    assert_eq!(all(reader).await.expect("complete"), b"a");
}

#[tokio::test]
async fn a_writer_nobody_reads_stops() {
    let (growing, _directory) = growing(2000, 0);
    drop(growing.reader());
    let mut stopped = false;
    for chunk in chunks() {
        stopped |= growing.push(chunk).await.is_err();
    }
    assert!(stopped);
}
