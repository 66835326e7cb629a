//! What stands in `systemd/`, judged by the programs that will read it: systemd, dbus-daemon, polkitd, udev, and our own parser.
//!
//! Nothing of the machine is changed: what must lie in system directories is mounted over them in a mount namespace of its own
//! ([`installed`]), which needs root. `AUTOGLM_REQUIRE_ROOT=1` turns such a skip into a failure. systemd does not run here as
//! the first process, so nothing here shows that the unit starts.

mod adapter;
mod bus;
mod config;
mod installed;
mod serial;
mod tool;
mod unit;
