//! One scripted response: status, fields, and a body in steps, with gates and breaks between them.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{Full, StreamBody};

use super::gate::Gate;

/// A 200 with that body, of known length, and no field but `Date`.
pub(crate) fn reply(body: impl Into<Bytes>) -> Reply {
    Reply { status: 200, fields: HeaderMap::new(), before_head: None, steps: vec![Step::Data(body.into())] }
}

#[derive(Clone)]
enum Step {
    Data(Bytes),
    Gate(Gate),
    Break,
    Trailers(HeaderMap),
}

/// One scripted response.
#[derive(Clone)]
pub(crate) struct Reply {
    status: u16,
    fields: HeaderMap,
    pub(super) before_head: Option<Gate>,
    steps: Vec<Step>,
}

impl Reply {
    pub(crate) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// One more line; lines of the same name stay lines.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a field name");
        self.fields.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a field value"));
        self
    }

    pub(crate) fn cache_control(self, value: &str) -> Self {
        self.header("cache-control", value)
    }

    pub(crate) fn max_age(self, seconds: u64) -> Self {
        self.cache_control(&format!("max-age={seconds}"))
    }

    /// Not even the head is sent before `gate` opens.
    pub(crate) fn hold(mut self, gate: &Gate) -> Self {
        self.before_head = Some(gate.clone());
        self
    }

    /// The body continues here once `gate` opens. From here on it is of unknown length.
    pub(crate) fn gate(mut self, gate: &Gate) -> Self {
        self.steps.push(Step::Gate(gate.clone()));
        self
    }

    /// One more piece of the body.
    pub(crate) fn chunk(mut self, bytes: impl Into<Bytes>) -> Self {
        self.steps.push(Step::Data(bytes.into()));
        self
    }

    /// The connection breaks here, in the middle of the body.
    pub(crate) fn break_here(mut self) -> Self {
        self.steps.push(Step::Break);
        self
    }

    /// The body ends with these trailer fields.
    pub(crate) fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        let fields = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]);
        self.steps.push(Step::Trailers(fields));
        self
    }
}

/// The HTTP response that plays the script.
pub(super) fn response(reply: Reply) -> Response<ReplyBody> {
    let body = match reply.steps.as_slice() {
        [Step::Data(bytes)] => ReplyBody::Whole(Full::new(bytes.clone())),
        _ => ReplyBody::Steps(Box::pin(StreamBody::new(stream::iter(reply.steps).filter_map(perform)))),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(reply.status).expect("a status of three digits");
    *response.headers_mut() = reply.fields;
    response
}

async fn perform(step: Step) -> Option<Result<Frame<Bytes>, Broken>> {
    match step {
        Step::Data(bytes) => Some(Ok(Frame::data(bytes))),
        Step::Trailers(fields) => Some(Ok(Frame::trailers(fields))),
        Step::Break => Some(Err(Broken)),
        Step::Gate(gate) => {
            gate.pass().await;
            None
        }
    }
}

/// Makes the server give the connection up.
#[derive(Debug, thiserror::Error)]
#[error("the script breaks the connection here")]
pub(super) struct Broken;

type Steps = Pin<Box<dyn Body<Data = Bytes, Error = Broken> + Send>>;

pub(super) enum ReplyBody {
    Whole(Full<Bytes>),
    Steps(Steps),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Self::Steps(body) => body.as_mut().poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Steps(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Steps(body) => body.size_hint(),
        }
    }
}
