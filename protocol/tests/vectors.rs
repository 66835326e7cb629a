//! The golden vectors fix the format: they were written by another encoder (`vectors/vectors.py`) and must never change
//! within a version.
extern crate alloc;

#[path = "vectors/check.rs"]
mod check;

#[test]
fn packets_mean_what_the_vectors_say_and_encode_to_them() {
    check::packets();
}

#[test]
fn bytes_that_are_no_packet_are_refused_as_the_vectors_say() {
    check::rejected();
}

#[test]
fn messages_mean_what_the_vectors_say_and_encode_to_them() {
    check::messages();
}

#[test]
fn bytes_that_are_no_message_are_refused_as_the_vectors_say() {
    check::rejected_messages();
}

#[test]
fn frames_hold_what_the_vectors_say_and_encode_to_them() {
    check::frames();
}
