//! Modbus RTU on a serial line, and Modbus TCP: one request at a time, each ending in an answer or a typed error.
//!
//! tokio-modbus 0.17 frames and checks; what it leaves to us, or gets wrong, is dealt with here:
//! - it waits for ever: every request has a deadline;
//! - its `Reader` and `Writer` assert that a unit answers what it was asked, and so panic at a wrong one in a debug build: only
//!   `call` is used, and lengths and echoes are checked here;
//! - after a decoding error its stream reports an end that is none: every failure gets a fresh client over the same line;
//! - an answer that comes too late would be taken for the answer to the next question, which nothing in Modbus RTU tells apart: after a
//!   failure the line must be quiet for a while, and whatever stands in its buffer when a request begins is thrown away. Over TCP requests
//!   are numbered, but each client counts from 0 again: there a failure makes the connection anew.
//!
//! Never decides what to ask, when to ask again, or whether a unit is away. Read first: [`line`](self), [`place`], then MODBUS over
//! Serial Line V1.02 §2.5.1 (frames are kept apart by silence of 3.5 characters) and MODBUS Messaging on TCP/IP V1.0b §3.1 (they are counted).

mod line;
mod place;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_modbus::client::{self, Client as _, Context};
use tokio_modbus::slave::{Slave, SlaveContext as _};
use tokio_modbus::{Error, ProtocolError, Request, Response};

use crate::link::ByteStream;
use line::Line;

pub use place::{BusPlace, OpenBusError, TcpPlace, TcpPlaceError, open};

/// Above 19,200 baud the silence between frames is fixed (MODBUS over Serial Line V1.02 §2.5.1.1).
const SILENCE_MIN: Duration = Duration::from_micros(1_750);
/// After a failure the line must be silent for so long before it is used again. Chosen because a unit that is merely slow begins its
/// answer within that of a deadline that was set for the line, and because it costs a tenth of the usual time-out.
const SETTLE: Duration = Duration::from_millis(50);
/// The longest that a babbling line is waited for after a failure.
const SETTLE_MAX: Duration = Duration::from_millis(500);

/// The four tables that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFunction {
    /// Function 1.
    Coils,
    /// Function 2.
    DiscreteInputs,
    /// Function 3.
    HoldingRegisters,
    /// Function 4.
    InputRegisters,
}

/// Something to write; addresses count from zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Function 5.
    Coil(u16, bool),
    /// Function 6.
    Register(u16, u16),
    /// Function 15, 1 to 1968 coils.
    Coils(u16, Vec<bool>),
    /// Function 16, 1 to 123 registers.
    Registers(u16, Vec<u16>),
}

/// What a read answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Coils or discrete inputs, exactly as many as were asked for.
    Bits(Vec<bool>),
    /// Registers, exactly as many as were asked for.
    Words(Vec<u16>),
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Nothing came: the unit is away, has another address, or another speed.
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
    /// Bytes came, but no whole frame with a right check sum: noise, a wrong speed or parity, two masters or two units of one address.
    #[error("{bytes} bytes came within {} ms, but no valid frame (noise, wrong speed or parity, or two units of one address)", .within.as_millis())]
    Garbled {
        /// How many bytes.
        bytes: u64,
        /// In what time.
        within: Duration,
    },
    /// A valid frame that does not answer the request: another unit's, or another length.
    #[error("an answer that does not fit the request")]
    Mismatch,
    /// The unit refused, with its exception code (MODBUS Application Protocol V1.1b3 §7).
    #[error("the unit answered exception {0}")]
    Exception(u8),
    /// The line is gone.
    #[error("the line failed")]
    Line(#[source] io::Error),
}

impl BusError {
    /// Whether the line itself is lost, so that nothing more can be asked over it.
    #[must_use]
    pub fn is_line(&self) -> bool {
        matches!(self, Self::Line(_))
    }

    /// Whether the unit may be away: it did not answer in a way that only a living unit can. A gateway that says that it cannot reach
    /// the unit (exceptions 10 and 11) says just that.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::Silent(_) | Self::Garbled { .. } | Self::Mismatch | Self::Exception(10 | 11)
        )
    }

    /// Whether the unit itself refused, and so is there.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Exception(_)) && !self.is_silence()
    }
}

/// A bus that was opened by its place.
pub type OpenBus = Bus<Box<dyn ByteStream>>;

/// A stream that is on its way.
type Renewing<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;
/// Makes a stream anew.
type Renew<T> = Box<dyn Fn() -> Renewing<T> + Send>;

/// How frames are kept apart.
enum Framing<T> {
    /// By silence, for so long.
    Rtu(Duration),
    /// By their header. After a failure the stream is made anew: an answer that comes late dies with the old one.
    Tcp(Renew<T>),
}

/// A serial line or a connection with units on it. It is owned by one task: requests cannot overlap, since each borrows it.
pub struct Bus<T> {
    line: Line<T>,
    client: Context,
    framing: Framing<T>,
}

impl<T> fmt::Debug for Bus<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Bus").finish_non_exhaustive()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Bus<T> {
    /// Takes a line; `baud` gives the silence that keeps frames apart.
    #[must_use]
    pub fn new(line: T, baud: u32) -> Self {
        let line = Line::new(line);
        let client = client::rtu::attach(line.clone());
        // 3.5 characters of 11 bits (start, eight data, parity or stop, stop).
        let silence = Duration::from_secs_f64(38.5 / f64::from(baud.max(1)));
        Self {
            line,
            client,
            framing: Framing::Rtu(silence.max(SILENCE_MIN)),
        }
    }

    /// Takes a connection to a device or gateway; `renew` makes another one to the same place.
    #[must_use]
    fn over_tcp(stream: T, renew: Renew<T>) -> Self {
        let line = Line::new(stream);
        Self {
            client: client::tcp::attach(line.clone()),
            line,
            framing: Framing::Tcp(renew),
        }
    }

    /// Reads `count` entries from `address`, counted from zero.
    ///
    /// Cancel safety: none; drop the bus with the future.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn read(
        &mut self,
        unit: u8,
        function: ReadFunction,
        address: u16,
        count: u16,
        timeout: Duration,
    ) -> Result<Answer, BusError> {
        let request = match function {
            ReadFunction::Coils => Request::ReadCoils(address, count),
            ReadFunction::DiscreteInputs => Request::ReadDiscreteInputs(address, count),
            ReadFunction::HoldingRegisters => Request::ReadHoldingRegisters(address, count),
            ReadFunction::InputRegisters => Request::ReadInputRegisters(address, count),
        };
        let count = usize::from(count);
        let answer = match self.call(unit, request, timeout).await? {
            Response::ReadCoils(mut bits) | Response::ReadDiscreteInputs(mut bits)
                // Bits come in whole bytes, so there may be up to seven more than asked for.
                if bits.len() >= count && bits.len() < count + 8 =>
            {
                bits.truncate(count);
                Answer::Bits(bits)
            }
            Response::ReadHoldingRegisters(words) | Response::ReadInputRegisters(words)
                if words.len() == count =>
            {
                Answer::Words(words)
            }
            _ => return Err(self.after(BusError::Mismatch).await),
        };
        Ok(answer)
    }

    /// Writes, and checks the unit's echo.
    ///
    /// Cancel safety: none; drop the bus with the future.
    ///
    /// # Errors
    /// [`BusError`]; after anything but [`BusError::Exception`] the unit may have taken it.
    pub async fn write(
        &mut self,
        unit: u8,
        write: &Write,
        timeout: Duration,
    ) -> Result<(), BusError> {
        let request = match write {
            Write::Coil(address, bit) => Request::WriteSingleCoil(*address, *bit),
            Write::Register(address, word) => Request::WriteSingleRegister(*address, *word),
            Write::Coils(address, bits) => Request::WriteMultipleCoils(*address, bits.into()),
            Write::Registers(address, words) => {
                Request::WriteMultipleRegisters(*address, words.into())
            }
        };
        let response = self.call(unit, request, timeout).await?;
        let is_echo = match (write, response) {
            (Write::Coil(address, bit), Response::WriteSingleCoil(at, now)) => {
                (*address, *bit) == (at, now)
            }
            (Write::Register(address, word), Response::WriteSingleRegister(at, now)) => {
                (*address, *word) == (at, now)
            }
            (Write::Coils(address, bits), Response::WriteMultipleCoils(at, count)) => {
                (*address, bits.len()) == (at, usize::from(count))
            }
            (Write::Registers(address, words), Response::WriteMultipleRegisters(at, count)) => {
                (*address, words.len()) == (at, usize::from(count))
            }
            _ => false,
        };
        if is_echo {
            Ok(())
        } else {
            Err(self.after(BusError::Mismatch).await)
        }
    }

    async fn call(
        &mut self,
        unit: u8,
        request: Request<'_>,
        timeout: Duration,
    ) -> Result<Response, BusError> {
        if let Framing::Rtu(silence) = self.framing {
            tokio::time::sleep(silence).await;
        }
        self.client.set_slave(Slave(unit));
        self.line.begin_request();
        let error = match tokio::time::timeout(timeout, self.client.call(request)).await {
            Ok(Ok(Ok(response))) => return Ok(response),
            Ok(Ok(Err(exception))) => return Err(BusError::Exception(exception.into())),
            Ok(Err(Error::Protocol(
                ProtocolError::HeaderMismatch { .. } | ProtocolError::FunctionCodeMismatch { .. },
            ))) => BusError::Mismatch,
            Ok(Err(Error::Transport(error))) if error.kind() == io::ErrorKind::InvalidData => {
                BusError::Garbled {
                    bytes: self.line.received(),
                    within: timeout,
                }
            }
            Ok(Err(Error::Transport(error))) => BusError::Line(error),
            Err(_) => match self.line.received() {
                0 => BusError::Silent(timeout),
                bytes => BusError::Garbled {
                    bytes,
                    within: timeout,
                },
            },
        };
        Err(self.after(error).await)
    }

    /// Makes the line ready for the next request after a failure.
    async fn after(&mut self, error: BusError) -> BusError {
        match &self.framing {
            _ if error.is_line() => {}
            Framing::Rtu(_) => {
                self.client = client::rtu::attach(self.line.clone());
                self.line.settle(SETTLE, SETTLE_MAX).await;
            }
            Framing::Tcp(renew) => match renew().await {
                Ok(stream) => {
                    self.line.replace(stream);
                    self.client = client::tcp::attach(self.line.clone());
                }
                Err(error) => return BusError::Line(error),
            },
        }
        error
    }
}

#[cfg(test)]
mod tests;
