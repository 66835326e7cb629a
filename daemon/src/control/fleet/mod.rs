//! The fleet door: commands over MQTT 5.
//!
//! | topic | direction | what |
//! | --- | --- | --- |
//! | `<root>/<box>/command` | in, QoS 1 | a [`message::Request`]; correlation data or `id` identifies it, the response topic gets the answer |
//! | response topic, or `<root>/<box>/result` | out, QoS 1 | [`message`] replies: `REJECTED`, `SUCCEEDED`, `FAILED` |
//! | `<root>/<box>/presence` | out, QoS 1, retained | birth (`online`) and last will (`offline`), with this run's boot id |
//!
//! A command is acknowledged to the broker once its outcome is durable in the ledger (or it was refused for good): until then the
//! broker delivers it again after any interruption, and the ledger sees to it that it runs once. What is said over the fleet door
//! has the rights of [`Principal::Fleet`](crate::router::Principal::Fleet): the broker's access control decides who may publish.
//! Signatures over commands are not part of this first form.

pub mod message;
pub mod service;
