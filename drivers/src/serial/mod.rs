//! Serial lines: which there are, where one that is meant is now, and opening it.
//!
//! [`place`] names lines in ways that outlive replugging, [`tty`] describes the ports that there are (both pure), [`scan`] looks for them,
//! [`watch`] hears of them from udev, [`mod@open`] opens one exclusively through tokio-serial, [`holder`] names who has one.
//!
//! Nothing here reopens a line: that is the supervisor's policy. After an unplug tokio-serial's reads return `Ok(0)` for ever:
//! whoever reads (the port) takes zero bytes as a lost link.

pub mod holder;
pub mod open;
pub mod place;
pub mod scan;
pub mod tty;
pub mod watch;

pub use open::{LineFormat, OpenError, open, open_place};
pub use place::{PlaceError, SerialPlace, UsbId, UsbPlace};
pub use tokio_serial::{Parity, StopBits};
pub use watch::{Arrivals, TtyWatch};
