//! Bodies under way, both directions: streamed frame by frame, counted, and copied for a mirror where one listens.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use crate::count::{Place, Tally};
use crate::hygiene;
use crate::pool::Lease;
use crate::router::{Busy, Service};

/// The most of a body that is kept for a mirror, in bytes.
pub(crate) const COPY_MOST: usize = 256 * 1024;

/// Copies of frames up to [`COPY_MOST`]; nothing is sent when the body was longer or broke off.
pub(crate) struct Copying {
    chunks: VecDeque<Bytes>,
    size: usize,
    to: Option<oneshot::Sender<VecDeque<Bytes>>>,
}

impl Copying {
    pub fn new() -> (Copying, oneshot::Receiver<VecDeque<Bytes>>) {
        let (to, from) = oneshot::channel();
        (Copying { chunks: VecDeque::new(), size: 0, to: Some(to) }, from)
    }

    fn take(&mut self, data: &Bytes) {
        self.size += data.len();
        if self.size > COPY_MOST {
            self.to = None;
            self.chunks.clear();
        } else {
            self.chunks.push_back(data.clone());
        }
    }

    fn done(&mut self) {
        if let Some(to) = self.to.take() {
            // Nobody listening is no fault: the mirror gave up in the meantime.
            let _ = to.send(std::mem::take(&mut self.chunks));
        }
    }
}

/// What is sent to a backend.
pub(crate) enum ToBackend {
    Empty,
    /// A client's body as it comes.
    Streamed(Box<Streamed>),
    /// A copy of one.
    Kept(VecDeque<Bytes>),
}

pub(crate) struct Streamed {
    body: Incoming,
    tally: Arc<Tally>,
    moved: Arc<AtomicBool>,
    copying: Option<Copying>,
}

impl ToBackend {
    /// Also gives the sign that bytes moved since one last looked, if there are any to come.
    pub fn of(
        body: Incoming,
        tally: &Arc<Tally>,
        copying: Option<Copying>,
    ) -> (ToBackend, Option<Arc<AtomicBool>>) {
        if body.is_end_stream() {
            if let Some(mut copying) = copying {
                copying.done();
            }
            return (ToBackend::Empty, None);
        }
        let moved = Arc::new(AtomicBool::new(false));
        let streamed = Streamed { body, tally: tally.clone(), moved: moved.clone(), copying };
        (ToBackend::Streamed(Box::new(streamed)), Some(moved))
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, ToBackend::Empty)
    }
}

impl Body for ToBackend {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let streamed = match self.get_mut() {
            ToBackend::Empty => return Poll::Ready(None),
            ToBackend::Kept(chunks) => {
                return Poll::Ready(chunks.pop_front().map(|chunk| Ok(Frame::data(chunk))));
            }
            ToBackend::Streamed(streamed) => streamed,
        };
        let polled = Pin::new(&mut streamed.body).poll_frame(cx);
        if let Poll::Ready(frame) = &polled {
            streamed.moved.store(true, Ordering::Relaxed);
            if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref)
            {
                Tally::add(&streamed.tally.bytes_in, data.len() as u64);
                if let Some(copying) = &mut streamed.copying {
                    copying.take(data);
                }
            }
            let ended = frame.is_none() || (matches!(frame, Some(Ok(_))) && streamed.body.is_end_stream());
            if ended && let Some(copying) = &mut streamed.copying {
                copying.done();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ToBackend::Empty => true,
            ToBackend::Streamed(streamed) => streamed.body.is_end_stream(),
            ToBackend::Kept(chunks) => chunks.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ToBackend::Empty => SizeHint::with_exact(0),
            ToBackend::Streamed(streamed) => streamed.body.size_hint(),
            ToBackend::Kept(chunks) => {
                SizeHint::with_exact(chunks.iter().map(|chunk| chunk.len() as u64).sum())
            }
        }
    }
}

/// What is sent to a client.
pub(crate) enum ToClient {
    /// Words of the router itself.
    Own(Option<Bytes>),
    /// A backend's answer.
    Relayed(Box<Relayed>),
}

/// A backend's answer under way. Holds the request in flight until the last byte has passed.
pub(crate) struct Relayed {
    body: Incoming,
    lease: Option<Lease>,
    tally: Arc<Tally>,
    /// Where to count it if it breaks off; none if it is an error already.
    place: Option<(Arc<Service>, Place)>,
    copying: Option<Copying>,
    busy: Option<Busy>,
}

impl Relayed {
    pub fn start(
        body: Incoming,
        lease: Lease,
        tally: Arc<Tally>,
        place: Option<(Arc<Service>, Place)>,
        copying: Option<Copying>,
        busy: Busy,
    ) -> ToClient {
        let mut relayed = Relayed { body, lease: Some(lease), tally, place, copying, busy: Some(busy) };
        if relayed.body.is_end_stream() {
            relayed.finish();
        }
        ToClient::Relayed(Box::new(relayed))
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.put_back();
        }
        if let Some(mut copying) = self.copying.take() {
            copying.done();
        }
        self.busy = None;
    }

    fn broke_off(&mut self) {
        self.lease = None;
        self.copying = None;
        if let Some((service, place)) = self.place.take() {
            service.signals.broke_off(place);
        }
        self.busy = None;
    }
}

impl Body for ToClient {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let relayed = match self.get_mut() {
            ToClient::Own(text) => return Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            ToClient::Relayed(relayed) => relayed,
        };
        let polled = Pin::new(&mut relayed.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                // HTTP says 200, and gRPC says in the end what became of it.
                if frame.trailers_ref().is_some_and(hygiene::grpc_failed)
                    && let Some((service, place)) = relayed.place.take()
                {
                    service.signals.broke_off(place);
                }
                if let Some(data) = frame.data_ref() {
                    Tally::add(&relayed.tally.bytes_out, data.len() as u64);
                    if let Some(copying) = &mut relayed.copying {
                        copying.take(data);
                    }
                }
                // With a known length nobody polls for the end: it is here.
                if relayed.body.is_end_stream() {
                    relayed.finish();
                }
            }
            Poll::Ready(Some(Err(_))) => relayed.broke_off(),
            Poll::Ready(None) => relayed.finish(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ToClient::Own(text) => text.is_none(),
            ToClient::Relayed(relayed) => relayed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ToClient::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            ToClient::Relayed(relayed) => relayed.body.size_hint(),
        }
    }
}
