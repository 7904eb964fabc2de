//! Vectors of texts whose answers are stored, and those of them that are near another one: within one frame only.
//!
//! The vectors of a frame are compared one by one, exactly, while that is up to a million multiplications. A frame that
//! outgrows this gets a graph beside them (usearch), which says where to look; what it finds is compared exactly as well.
//! A graph takes each of its vectors ten times as long as a comparison, so it is built bit by bit, before it is needed.
//!
//! Bounded: the oldest vector makes room for a new one, whatever frame it is of.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;
use usearch::{IndexOptions, MetricKind, ScalarKind};

use crate::object::key::Key;

/// Multiplications from which on a graph is built: they take more than a tenth of a millisecond.
const GRAPH_WORK_MIN: usize = 1 << 20;

/// Waiting vectors that a graph takes with each new one.
const GRAPH_STEP: usize = 4;

/// Those that are looked at, of the nearest.
const NEAREST_MAX: usize = 4;

/// Those that a graph is asked for: it compares roughly.
const GRAPH_NEAREST_MAX: usize = 16;

/// All vectors of a route.
pub(super) struct Index {
    entries_max: usize,
    graph_work_min: usize,
    inner: Mutex<Inner>,
}

/// A stored answer to a similar text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Near {
    /// What it is stored under.
    pub(super) key: Key,
    /// The cosine.
    pub(super) similarity: f32,
}

#[derive(Default)]
struct Inner {
    /// Numbers in each vector.
    dimensions: usize,
    next: u64,
    frames: HashMap<Key, Frame>,
    /// By what the answer is stored under: which one, of which frame.
    places: HashMap<Key, (u64, Key)>,
    /// From the oldest on.
    ages: BTreeMap<u64, Key>,
}

#[derive(Default)]
struct Frame {
    ids: Vec<u64>,
    keys: Vec<Key>,
    /// One after the other, of length 1.
    vectors: Vec<f32>,
    rows: HashMap<u64, usize>,
    graph: Option<Graph>,
}

struct Graph {
    index: usearch::Index,
    /// Those it does not have yet.
    waiting: Vec<u64>,
}

impl Index {
    pub(super) fn new(entries_max: usize) -> Self {
        Self { entries_max, graph_work_min: GRAPH_WORK_MIN, inner: Mutex::default() }
    }

    /// Vectors in it.
    pub(super) fn len(&self) -> usize {
        self.inner.lock().places.len()
    }

    /// Notes that the answer to a text with this vector lies under `key`. Vectors of another length than the first one's are
    /// of another model, and not taken.
    pub(super) fn add(&self, frame: Key, key: Key, vector: &[f32]) {
        let mut inner = self.inner.lock();
        if inner.places.is_empty() {
            inner.dimensions = vector.len();
        }
        if vector.is_empty() || vector.len() != inner.dimensions {
            return;
        }
        inner.remove(&key);
        while inner.places.len() >= self.entries_max {
            let Some((_, oldest)) = inner.ages.pop_first() else { break };
            inner.remove(&oldest);
        }
        let id = inner.next;
        inner.next += 1;
        inner.places.insert(key, (id, frame));
        inner.ages.insert(id, key);
        inner.frames.entry(frame).or_default().add(id, key, vector, self.graph_work_min);
    }

    /// Forgets an answer.
    pub(super) fn remove(&self, key: &Key) {
        self.inner.lock().remove(key);
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        *self.inner.lock() = Inner::default();
    }

    /// Those of a frame that are as near as `threshold`, the nearest first.
    pub(super) fn nearest(&self, frame: &Key, vector: &[f32], threshold: f32) -> Vec<Near> {
        let inner = self.inner.lock();
        if vector.len() != inner.dimensions {
            return Vec::new();
        }
        let Some(frame) = inner.frames.get(frame) else { return Vec::new() };
        let mut near = frame.near(vector, threshold);
        near.sort_unstable_by(|one, other| other.similarity.total_cmp(&one.similarity));
        near.truncate(NEAREST_MAX);
        near
    }
}

impl Inner {
    fn remove(&mut self, key: &Key) {
        let Some((id, frame)) = self.places.remove(key) else { return };
        self.ages.remove(&id);
        if let Some(found) = self.frames.get_mut(&frame) {
            found.remove(id, self.dimensions);
            if found.ids.is_empty() {
                self.frames.remove(&frame);
            }
        }
    }
}

impl Frame {
    fn add(&mut self, id: u64, key: Key, vector: &[f32], graph_work_min: usize) {
        self.rows.insert(id, self.ids.len());
        self.ids.push(id);
        self.keys.push(key);
        self.vectors.extend_from_slice(vector);
        match &mut self.graph {
            Some(graph) => graph.waiting.push(id),
            None if self.vectors.len() >= graph_work_min => {
                self.graph = Graph::new(vector.len(), self.ids.clone());
            }
            None => return,
        }
        self.build();
    }

    /// Goes on building the graph.
    fn build(&mut self) {
        let Some(mut graph) = self.graph.take() else { return };
        for _ in 0..GRAPH_STEP {
            let Some(id) = graph.waiting.pop() else { break };
            let Some(vector) = self.vector(id) else { continue };
            if graph.add(id, vector).is_none() {
                // Without one all are compared: slower, and right.
                return;
            }
        }
        self.graph = Some(graph);
    }

    fn vector(&self, id: u64) -> Option<&[f32]> {
        let dimensions = self.vectors.len() / self.ids.len().max(1);
        let row = *self.rows.get(&id)?;
        self.vectors.get(row * dimensions..(row + 1) * dimensions)
    }

    /// The last one takes its place.
    fn remove(&mut self, id: u64, dimensions: usize) {
        let Some(row) = self.rows.remove(&id) else { return };
        self.ids.swap_remove(row);
        self.keys.swap_remove(row);
        let last = self.vectors.len() - dimensions;
        self.vectors.copy_within(last.., row * dimensions);
        self.vectors.truncate(last);
        if let Some(moved) = self.ids.get(row) {
            self.rows.insert(*moved, row);
        }
        if let Some(graph) = &mut self.graph {
            graph.remove(id);
        }
    }

    fn near(&self, vector: &[f32], threshold: f32) -> Vec<Near> {
        let compared = |row: usize, other: &[f32]| Near { key: self.keys[row], similarity: dot(vector, other) };
        let is_near = |near: &Near| near.similarity >= threshold;
        let found = self.graph.as_ref().and_then(|graph| graph.nearest(vector));
        match found {
            Some(ids) => {
                let rows = ids.iter().filter_map(|id| Some((*self.rows.get(id)?, self.vector(*id)?)));
                rows.map(|(row, other)| compared(row, other)).filter(is_near).collect()
            }
            None => {
                let rows = self.vectors.chunks_exact(vector.len()).enumerate();
                rows.map(|(row, other)| compared(row, other)).filter(is_near).collect()
            }
        }
    }
}

impl Graph {
    fn new(dimensions: usize, waiting: Vec<u64>) -> Option<Self> {
        let options = IndexOptions {
            dimensions,
            metric: MetricKind::Cos,
            // It says where to look; the comparison that counts is of the vectors themselves.
            quantization: ScalarKind::BF16,
            ..IndexOptions::default()
        };
        let index = usearch::Index::new(&options);
        let index = index.inspect_err(|error| tracing::warn!(%error, "no graph of vectors")).ok()?;
        Some(Self { index, waiting })
    }

    fn add(&self, id: u64, vector: &[f32]) -> Option<()> {
        let (size, capacity) = (self.index.size(), self.index.capacity());
        let made_room = if size < capacity { Ok(()) } else { self.index.reserve((2 * size).max(256)) };
        let added = made_room.and_then(|()| self.index.add(id, vector));
        added.inspect_err(|error| tracing::warn!(%error, "a graph of vectors is given up")).ok()
    }

    fn remove(&mut self, id: u64) {
        self.waiting.retain(|waiting| *waiting != id);
        // What is left in it is found, and has no row.
        let _ = self.index.remove(id);
    }

    /// Those that are probably the nearest; nothing while it is not complete.
    fn nearest(&self, vector: &[f32]) -> Option<Vec<u64>> {
        if !self.waiting.is_empty() {
            return None;
        }
        self.index.search(vector, GRAPH_NEAREST_MAX).ok().map(|matches| matches.keys)
    }
}

/// The sum of products, in eight sums that the processor keeps side by side.
fn dot(one: &[f32], other: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (ones, others) = (one.chunks_exact(8), other.chunks_exact(8));
    let rest: f32 = ones.remainder().iter().zip(others.remainder()).map(|(one, other)| one * other).sum();
    for (one, other) in ones.zip(others) {
        for (sum, (one, other)) in sums.iter_mut().zip(one.iter().zip(other)) {
            *sum += one * other;
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// A vector of length 1 in the same direction; nothing where there is no direction.
pub(super) fn normalised(mut vector: Vec<f32>) -> Option<Vec<f32>> {
    let length = dot(&vector, &vector).sqrt();
    if !length.is_normal() {
        return None;
    }
    vector.iter_mut().for_each(|one| *one /= length);
    Some(vector)
}

/// The cosine of two vectors of length 1.
pub(super) fn cosine(one: &[f32], other: &[f32]) -> f32 {
    if one.len() == other.len() { dot(one, other) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::object::key::KeyBuilder;

    fn key(number: usize) -> Key {
        KeyBuilder::new("test").field(&number.to_le_bytes()).finish()
    }

    /// On a circle, at that angle, among other dimensions.
    fn at(degrees: f32) -> Vec<f32> {
        let angle = degrees.to_radians();
        let mut vector = vec![0.0; 19];
        (vector[2], vector[17]) = (angle.cos(), angle.sin());
        vector
    }

    fn keys(near: &[Near]) -> Vec<Key> {
        near.iter().map(|near| near.key).collect()
    }

    #[test]
    fn the_nearest_of_a_frame_comes_first() {
        let index = Index::new(100);
        for (number, degrees) in [0.0, 10.0, 30.0, 90.0].into_iter().enumerate() {
            index.add(key(1000), key(number), &at(degrees));
        }
        index.add(key(2000), key(9), &at(12.0));
        let near = index.nearest(&key(1000), &at(12.0), 0.9);
        assert_eq!(keys(&near), [key(1), key(0), key(2)]);
        assert!((near[0].similarity - 2.0_f32.to_radians().cos()).abs() < 1e-5);
        assert_eq!(keys(&index.nearest(&key(2000), &at(12.0), 0.9)), [key(9)], "frames are apart");
        assert!(index.nearest(&key(3000), &at(12.0), 0.0).is_empty());
        assert!(index.nearest(&key(1000), &[1.0], 0.0).is_empty(), "of another model");
        index.remove(&key(1));
        assert_eq!(keys(&index.nearest(&key(1000), &at(12.0), 0.9)), [key(0), key(2)]);
        index.clear();
        assert_eq!(index.len(), 0);
    }

    #[test]
    fn the_oldest_makes_room() {
        let index = Index::new(2);
        for number in 0..3 {
            index.add(key(1000 + number), key(number), &at(0.0));
        }
        assert_eq!(index.len(), 2);
        assert!(index.nearest(&key(1000), &at(0.0), 0.5).is_empty());
        assert_eq!(keys(&index.nearest(&key(1001), &at(0.0), 0.5)), [key(1)]);
        index.add(key(1001), key(1), &at(50.0));
        assert_eq!(index.len(), 2, "the same answer once");
        assert_eq!(index.inner.lock().frames.len(), 2);
    }

    #[test]
    fn a_graph_finds_what_comparing_all_finds() {
        let index = Index { graph_work_min: 19 * 50, ..Index::new(400) };
        let frame = key(1000);
        // Half of them go again: oldest first, and some by name.
        for number in 0..600_usize {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            index.add(frame, key(number), &at(number as f32 * 0.5));
            if number % 7 == 0 {
                index.remove(&key(number / 2));
            }
        }
        assert!(index.inner.lock().frames[&frame].graph.as_ref().is_some_and(|graph| graph.waiting.is_empty()));
        let mut found = 0;
        for number in (300..600_usize).filter(|number| index.inner.lock().places.contains_key(&key(*number))) {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let near = index.nearest(&frame, &at(number as f32 * 0.5 + 0.1), 0.99);
            assert!(near.iter().all(|near| near.similarity >= 0.99));
            found += usize::from(near.first().is_some_and(|near| near.key == key(number)));
        }
        let all =
            index.inner.lock().places.keys().filter(|place| (300..600).any(|number| key(number) == **place)).count();
        assert!(found * 100 >= all * 95, "{found} of {all}");
    }

    proptest! {
        /// Whatever is added and removed, the tables tell the same.
        #[test]
        fn prop_tables_agree(steps in prop::collection::vec((0..3_usize, 0..20_usize, 0..360_u16, any::<bool>()), 0..80)) {
            let index = Index { graph_work_min: 19 * 6, ..Index::new(12) };
            for (frame, number, degrees, adds) in steps {
                if adds {
                    // A key is of one frame, as its text and its frame are both within it.
                    index.add(key(1000 + number % 3), key(number), &at(degrees.into()));
                } else {
                    index.remove(&key(number));
                }
                let inner = index.inner.lock();
                prop_assert!(inner.places.len() <= 12 && inner.places.len() == inner.ages.len());
                let rows: usize = inner.frames.values().map(|frame| frame.ids.len()).sum();
                prop_assert_eq!(rows, inner.places.len());
                for found in inner.frames.values() {
                    prop_assert_eq!(found.vectors.len(), found.ids.len() * 19);
                    prop_assert!(found.ids.iter().enumerate().all(|(row, id)| found.rows[id] == row));
                }
                drop(inner);
                let near = index.nearest(&key(1000 + frame), &at(degrees.into()), 0.5);
                prop_assert!(near.is_sorted_by(|one, other| one.similarity >= other.similarity));
            }
        }
    }
}
