//! A stored stream, sent event by event at a pace.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::header;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::accounts::{USAGE, millis};
use crate::{
    cache::{body::Body, call::Answer},
    llm::{config::Pace, events::Splitter},
};

/// Events that are still to come.
pub struct Paced {
    events: VecDeque<Bytes>,
    /// Bytes of them.
    left: u64,
    /// Between two of them.
    pause: Duration,
    next: Pin<Box<Sleep>>,
}

impl Paced {
    /// The same answer at that pace, where it is a stream that is in memory.
    pub(super) fn over(mut answer: Answer, pace: Pace) -> Answer {
        let fields = answer.response.headers();
        let streams =
            fields.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let took = fields.get(USAGE).and_then(millis);
        if pace == Pace::Instant || !streams {
            return answer;
        }
        answer.response = answer.response.map(|body| match body {
            Body::Full(content) => Self::body(&content, pace, took),
            other => other,
        });
        answer
    }

    fn body(content: &Bytes, pace: Pace, took: Option<Duration>) -> Body {
        let mut start = 0;
        let mut events = VecDeque::new();
        for end in Splitter::default().ends(content) {
            events.push_back(content.slice(start..end));
            start = end;
        }
        if start < content.len() {
            events.push_back(content.slice(start..));
        }
        let count = u32::try_from(events.len()).unwrap_or(u32::MAX).max(1);
        let pause = match pace {
            Pace::Instant => Duration::ZERO,
            Pace::Original => took.unwrap_or_default() / count,
            Pace::Events(rate) => Duration::try_from_secs_f64(1.0 / rate).unwrap_or_default(),
        };
        let next = Box::pin(tokio::time::sleep_until(Instant::now() + pause));
        Body::Paced(Box::new(Self { events, left: content.len() as u64, pause, next }))
    }

    pub(in crate::cache) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if self.events.is_empty() {
            return Poll::Ready(None);
        }
        ready!(self.next.as_mut().poll(cx));
        // From when it was due: a client that reads slowly does not make the rest slower.
        let due = self.next.deadline() + self.pause;
        self.next.as_mut().reset(due);
        let event = self.events.pop_front();
        self.left -= event.as_ref().map_or(0, |event| event.len() as u64);
        Poll::Ready(event.map(Frame::data))
    }

    pub(in crate::cache) fn is_end_stream(&self) -> bool {
        self.events.is_empty()
    }

    pub(in crate::cache) fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn times(pace: Pace, took: Duration) -> Vec<(Bytes, u128)> {
        let content = Bytes::from_static(b"data: a\n\ndata: b\n\nevent: c\ndata: c\n\ndata: [DONE]\n\n");
        let begun = Instant::now();
        let (mut body, mut times) = (Paced::body(&content, pace, Some(took)), Vec::new());
        while let Some(frame) = body.frame().await {
            let data = frame.expect("stored").into_data().expect("data");
            times.push((data, begun.elapsed().as_millis()));
        }
        let all: Vec<u8> = times.iter().flat_map(|(data, _)| data.to_vec()).collect();
        assert_eq!(all, content, "the bytes are the same");
        times
    }

    #[tokio::test(start_paused = true)]
    async fn events_come_at_their_pace() {
        let moments = |times: Vec<(Bytes, u128)>| times.into_iter().map(|(_, at)| at).collect::<Vec<_>>();
        assert_eq!(moments(times(Pace::Events(10.0), Duration::ZERO).await), [100, 200, 300, 400]);
        assert_eq!(moments(times(Pace::Original, Duration::from_secs(2)).await), [500, 1000, 1500, 2000]);
        let events = times(Pace::Events(1000.0), Duration::ZERO).await;
        assert_eq!(events[2].0, "event: c\ndata: c\n\n");
    }
}
