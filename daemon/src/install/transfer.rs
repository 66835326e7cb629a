//! A file on its way from a server, counted and bounded by whoever reads it. Blocks.

use std::{
    io::{self, Read},
    thread,
    time::Duration,
};

use ureq::{Agent, http::StatusCode};

/// Pauses before a transfer that broke off is taken up again where it was.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(8),
];

/// A file on its way, taken up again where it was when the connection breaks.
pub(super) struct Transfer<'r> {
    agent: &'r Agent,
    token: Option<&'r str>,
    url: String,
    body: Option<Box<dyn Read>>,
    offset: u64,
    /// Where the file ends, if that is known.
    bytes: Option<u64>,
    pauses: std::slice::Iter<'static, Duration>,
}

impl<'r> Transfer<'r> {
    /// Nothing is asked for before it is read. `bytes` is where the file ends, if that is known.
    pub(super) fn new(
        agent: &'r Agent,
        token: Option<&'r str>,
        url: String,
        bytes: Option<u64>,
    ) -> Self {
        Self {
            agent,
            token,
            url,
            body: None,
            offset: 0,
            bytes,
            pauses: PAUSES.iter(),
        }
    }

    fn connect(&self) -> io::Result<Box<dyn Read>> {
        let mut request = self
            .agent
            .get(&self.url)
            // Packed, the offsets would not be the file's.
            .header("Accept-Encoding", "identity");
        if let Some(token) = self.token {
            // To the hub alone: the client takes it off when it is sent on to another host.
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if self.offset > 0 {
            request = request.header("Range", format!("bytes={}-", self.offset));
        }
        let response = request.call().map_err(io::Error::other)?;
        let is_part = response.status() == StatusCode::PARTIAL_CONTENT;
        let mut body: Box<dyn Read> = Box::new(response.into_body().into_reader());
        if self.offset > 0 && !is_part {
            // A server that begins anew.
            io::copy(&mut body.by_ref().take(self.offset), &mut io::sink())?;
        }
        Ok(body)
    }

    fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.body.is_none() {
            self.body = Some(self.connect()?);
        }
        self.body.as_mut().map_or(Ok(0), |body| body.read(into))
    }
}

impl Read for Transfer<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let result = self.try_read(into);
            let error = match result {
                Ok(0) if self.bytes.is_some_and(|bytes| self.offset < bytes) => {
                    io::Error::new(io::ErrorKind::UnexpectedEof, "the transfer broke off")
                }
                Ok(count) => {
                    self.offset += count as u64;
                    return Ok(count);
                }
                Err(error) => error,
            };
            self.body = None;
            let is_final = error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<ureq::Error>())
                .is_some_and(|inner| matches!(inner, ureq::Error::StatusCode(status) if *status < 500 && *status != 429));
            match self.pauses.next() {
                Some(pause) if !is_final => thread::sleep(*pause),
                _ => return Err(error),
            }
        }
    }
}
