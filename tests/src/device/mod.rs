//! Simulated devices: separate processes that speak the protocol in its device role.
//!
//! A stand-in for hardware that cannot exist here, and named as such; what is simulated is only the lamp's filament and
//! the thermometer's air. The protocol, the line and the description are the real ones, and the same program serves real
//! serial hardware with `--serial /dev/ttyUSB1`.
//!
//! [`model`] is what the device is (pure), [`lamp`] and [`thermometer`] are the two kinds, [`mod@line`] makes the
//! pseudo-terminal, [`noise`] spoils it on request, [`inbox`] keeps what is carried to it, [`peripheral`] is its end of a BLE
//! link, [`datagrams`] that of a radio that another program plays, [`ways`] are the line, the radio and the broker by which it is reached, and [`serve`] is the loop.

pub mod datagrams;
pub mod inbox;
pub mod lamp;
pub mod line;
pub mod model;
pub mod noise;
pub mod peripheral;
pub mod serve;
pub mod thermometer;
pub mod ways;
