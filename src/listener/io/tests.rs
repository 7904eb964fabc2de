use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    task::Wake,
    time::Duration,
};

use bytes::Bytes;
use bytesize::ByteSize;
use http::{Request, Response};
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Semaphore,
};

use super::{
    super::{ClientBody, Config, Peer, Server, metrics::Metrics},
    *,
};
use crate::{object::plain::Plain, telemetry::Registry};

/// Answers at once what has `/now` in it, with as much content as the number behind it says.
struct Now;

impl Handler for Now {
    type Body = Full<Bytes>;

    fn express(&self, request: &Plain<'_>, _peer: &Peer, head: &mut Vec<u8>) -> Option<Full<Bytes>> {
        let length = request.path().strip_prefix("/now")?.parse().ok()?;
        head.extend_from_slice(b"[head]");
        Some(Full::new(vec![b'x'; length].into()))
    }

    async fn handle(&self, _: Request<ClientBody>, _: &Arc<Peer>) -> Response<Full<Bytes>> {
        unreachable!("nothing is asked here")
    }
}

fn config() -> Config {
    let (time, bytes) = (Duration::from_secs(9), ByteSize::kib(64));
    Config {
        connections_max: 1,
        head_bytes_max: bytes,
        head_fields_max: 100,
        head_timeout: time,
        idle_timeout: time,
        body_bytes_max: bytes,
        body_idle_timeout: time,
        body_rate_min: bytes,
        write_timeout: time,
        h2_streams_max: 1,
        drain_timeout: time,
    }
}

async fn io(link: &Arc<Link>) -> (Io<Now>, TcpStream) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("listening");
    let (server, addr) = listener.accept().await.expect("connected");
    let place = Arc::new(Semaphore::new(1)).acquire_owned().await.expect("open");
    let open = OpenGuard::new(&Metrics::register(&mut Registry::default()), place);
    let shared = Server::new(config(), &mut Registry::default()).shared();
    let lane = Lane { handler: Now, peer: Arc::new(Peer::new(addr, addr)), shared };
    (Io::new(server, lane, Sniffed::default(), Arc::clone(link), Some(open)), client)
}

async fn write(io: &mut Io<Now>, bytes: &[u8]) {
    let written = poll_fn(|cx| Pin::new(&mut *io).poll_write(cx, bytes)).await;
    assert_eq!(written.expect("written"), bytes.len());
}

async fn flush(io: &mut Io<Now>) {
    poll_fn(|cx| Pin::new(&mut *io).poll_flush(cx)).await.expect("flushed");
}

/// What hyper would get to read.
async fn read(io: &mut Io<Now>) -> String {
    let mut bytes = [0; 4096];
    let mut buffer = ReadBuf::new(&mut bytes);
    poll_fn(|cx| Pin::new(&mut *io).poll_read(cx, &mut buffer)).await.expect("read");
    String::from_utf8(buffer.filled().to_vec()).expect("text")
}

const NOW: &str = "GET /now1 HTTP/1.1\r\nhost: a\r\n\r\n";
const LATER: &str = "GET /later HTTP/1.1\r\nhost: a\r\n\r\n";

/// What the lane answers hyper never sees; what follows it, hyper sees from its first byte.
#[tokio::test]
async fn the_lane_takes_what_it_answers() {
    let link = Arc::new(Link::new(false));
    let (mut io, mut client) = io(&link).await;
    client.write_all([NOW, NOW, LATER, NOW].concat().as_bytes()).await.expect("written");
    assert_eq!(read(&mut io).await, [LATER, NOW].concat());
    assert_eq!(link.request(), 2);
    write(&mut io, b"[later]").await;
    drop(io);
    let mut got = String::new();
    client.read_to_string(&mut got).await.expect("read");
    assert_eq!(got, "[head]x[head]x[later]");
}

/// Half a head belongs to hyper, and so does the rest of it.
#[tokio::test]
async fn the_lane_takes_no_half() {
    let link = Arc::new(Link::new(false));
    let (mut io, mut client) = io(&link).await;
    let (first, rest) = NOW.split_at(20);
    client.write_all(first.as_bytes()).await.expect("written");
    assert_eq!(read(&mut io).await, first);
    client.write_all([rest, NOW].concat().as_bytes()).await.expect("written");
    assert_eq!(read(&mut io).await, [rest, NOW].concat());
}

/// While hyper has a request, or an answer that is not yet in the socket, all bytes are its own.
#[tokio::test]
async fn the_lane_waits_for_hyper() {
    let link = Arc::new(Link::new(false));
    let (mut io, mut client) = io(&link).await;
    client.write_all(LATER.as_bytes()).await.expect("written");
    assert_eq!(read(&mut io).await, LATER);
    link.begin(true, Some(0));
    link.respond();
    link.finish(false);
    flush(&mut io).await;
    client.write_all([NOW, LATER].concat().as_bytes()).await.expect("written");
    assert_eq!(read(&mut io).await, LATER, "after the flush the lane is open again");
    link.begin(true, Some(0));
    link.respond();
    link.finish(false);
    client.write_all(NOW.as_bytes()).await.expect("written");
    assert_eq!(read(&mut io).await, NOW, "the answer may still be in hyper's buffer");
}

/// A client that does not read gets its answer when it does, and hyper's answers wait behind it.
#[tokio::test]
async fn an_answer_larger_than_the_socket() {
    let link = Arc::new(Link::new(false));
    let (mut io, mut client) = io(&link).await;
    let large = NOW.replace("now1", "now50000000");
    client.write_all([&large, LATER].concat().as_bytes()).await.expect("written");
    assert_eq!(read(&mut io).await, LATER);
    assert!(matches!(link.waits(), Some((super::super::link::Wait::Write, _))), "the client is to read");
    let (sent, got) = tokio::join!(
        async {
            write(&mut io, b"[later]").await;
            drop(io);
        },
        async {
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.expect("read");
            got
        }
    );
    let () = sent;
    assert_eq!(got.len(), "[head]".len() + 50_000_000 + "[later]".len());
    assert!(got.ends_with(b"x[later]"));
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// hyper gets no second piece before the first is written, and is then told to ask again.
#[tokio::test]
async fn hyper_gets_a_large_piece_alone() {
    let link = Arc::new(Link::new(false));
    let (mut io, _client) = io(&link).await;
    let woken = Arc::<Woken>::default();
    let mut wakes_after_flush = || {
        let waker = Arc::clone(&woken).into();
        assert!(Pin::new(&mut io).poll_flush(&mut Context::from_waker(&waker)).is_ready());
        woken.0.load(Relaxed)
    };
    link.begin(true, Some(0));
    link.respond();
    link.give(100);
    assert!(!link.withholds(), "small ones may go together");
    assert_eq!(wakes_after_flush(), 0, "nobody waits");
    link.give(100_000);
    assert!(link.withholds());
    assert_eq!(wakes_after_flush(), 1);
    assert!(!link.withholds());
    assert_eq!(wakes_after_flush(), 1);
}

/// Takes everything, and gives nothing on before it is told to, but for what it counts.
struct Behind {
    open: Arc<AtomicBool>,
    taken: Arc<AtomicU64>,
}

impl Transport for Behind {
    const WRITES_BEHIND: bool = true;

    fn break_off(&self) {}

    fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }
}

impl AsyncRead for Behind {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        buffer.put_slice(NOW.as_bytes());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Behind {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.open.load(Relaxed) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// TLS takes what the client does not, up to a size that many responses never reach.
#[tokio::test]
async fn what_is_written_behind_is_waited_for() {
    let (open, taken, link) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::new(Link::new(false)));
    let stream = Behind { open: Arc::clone(&open), taken: Arc::clone(&taken) };
    let addr = SocketAddr::from(([127, 0, 0, 1], 1));
    let shared = Server::new(config(), &mut Registry::default()).shared();
    let lane = Lane { handler: Now, peer: Arc::new(Peer::new(addr, addr)), shared };
    let mut io = Io::new(stream, lane, Sniffed::default(), Arc::clone(&link), None);
    let mut bytes = [0; 4096];
    let mut buffer = ReadBuf::new(&mut bytes);
    poll_fn(|cx| Pin::new(&mut io).poll_read(cx, &mut buffer)).await.expect("read");
    assert_eq!(buffer.filled(), NOW.as_bytes(), "an answer of the lane would not be flushed");

    link.begin(true, Some(0));
    link.respond();
    let mut flush = || Pin::new(&mut io).poll_flush(&mut Context::from_waker(std::task::Waker::noop()));
    let mut waits = Vec::new();
    for count in [0, 0, 7, 7, 9] {
        taken.store(count, Relaxed);
        assert!(flush().is_pending());
        waits.push(link.waits().expect("the client is to read"));
    }
    assert!(waits.iter().all(|(wait, _)| *wait == super::super::link::Wait::Write));
    let anew = waits.windows(2).map(|pair| pair[0] != pair[1]).collect::<Vec<_>>();
    assert_eq!(anew, [false, true, false, true], "its time begins anew when it has taken something");
    open.store(true, Relaxed);
    assert!(flush().is_ready());
    assert_eq!(link.waits(), None);
}

/// hyper may still have all of a response in its buffer when it gives out the next request.
#[tokio::test]
async fn hints_wait_for_the_response_before_them() {
    let link = Arc::new(Link::new(false));
    let (mut io, mut client) = io(&link).await;
    link.begin(true, Some(0));
    flush(&mut io).await;
    link.respond();
    link.finish(false);
    link.begin(true, Some(0));
    link.offer(2, |out| out.extend_from_slice(b"[hint 2]"));
    write(&mut io, b"[response 1]").await;
    flush(&mut io).await;
    link.respond();
    write(&mut io, b"[response 2]").await;
    drop(io);
    let mut got = String::new();
    client.read_to_string(&mut got).await.expect("read");
    assert_eq!(got, "[response 1][hint 2][response 2]");
}

/// The handler may offer a hint and answer before hyper comes to write.
#[tokio::test]
async fn hints_go_before_their_own_response() {
    let link = Arc::new(Link::new(false));
    let (mut io, mut client) = io(&link).await;
    link.begin(true, Some(0));
    flush(&mut io).await;
    link.offer(1, |out| out.extend_from_slice(b"[hint 1]"));
    link.respond();
    write(&mut io, b"[response 1").await;
    link.offer(1, |out| out.extend_from_slice(b"[late]"));
    flush(&mut io).await;
    write(&mut io, b"]").await;
    drop(io);
    let mut got = String::new();
    client.read_to_string(&mut got).await.expect("read");
    assert_eq!(got, "[hint 1][response 1]");
}
