//! The line under a Modbus client: counts what comes in, and throws away what came before the request.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// A stream that outlives the clients that are made over it. Clones are the same line; only one is used at a time.
pub(super) struct Line<T>(Arc<Mutex<Inner<T>>>);

impl<T> fmt::Debug for Line<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Line")
    }
}

struct Inner<T> {
    stream: T,
    /// Input up to the first byte of the request is an earlier answer that came late.
    is_stale: bool,
    received: u64,
}

impl<T> Clone for Line<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Line<T> {
    pub(super) fn new(stream: T) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            stream,
            is_stale: true,
            received: 0,
        })))
    }

    // Held for one poll and never across one, so a panic in between cannot leave it half changed.
    fn inner(&self) -> MutexGuard<'_, Inner<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on over another stream; what was on its way on the old one is gone with it.
    pub(super) fn replace(&self, stream: T) {
        let mut inner = self.inner();
        inner.stream = stream;
        inner.is_stale = false;
    }

    /// What comes in from now on is counted; what stands in the buffer is thrown away when the request's first byte leaves.
    pub(super) fn begin_request(&self) {
        let mut inner = self.inner();
        inner.is_stale = true;
        inner.received = 0;
    }

    /// Bytes since the request began.
    pub(super) fn received(&self) -> u64 {
        self.inner().received
    }
}

impl<T: AsyncRead + Unpin> Line<T> {
    /// Reads and forgets until nothing came for `quiet`, at most for `limit`.
    pub(super) async fn settle(&mut self, quiet: Duration, limit: Duration) {
        let until_quiet = async {
            let mut scratch = [0; 256];
            while let Ok(Ok(1..)) = tokio::time::timeout(quiet, self.read(&mut scratch)).await {}
        };
        let _ = tokio::time::timeout(limit, until_quiet).await;
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Line<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut inner.stream).poll_read(context, buffer))?;
        inner.received += (buffer.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Line<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.inner();
        if inner.is_stale {
            inner.is_stale = false;
            // At most so many turns: a line that babbles without end must not keep the request from leaving.
            for _ in 0..64 {
                let mut scratch = [0; 256];
                let mut buffer = ReadBuf::new(&mut scratch);
                match Pin::new(&mut inner.stream).poll_read(context, &mut buffer) {
                    Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                    Poll::Ready(Ok(())) => {
                        return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
            }
        }
        Pin::new(&mut inner.stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner().stream).poll_shutdown(context)
    }
}
