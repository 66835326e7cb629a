//! Any bytes are a message that keeps its bounds and its meaning, or an error.
#![no_main]

use autoglm_protocol::message::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = Message::from_bytes(bytes) {
        assert!(message.is_within_bounds());
        let encoded = message.to_bytes();
        let again = Message::from_bytes(&encoded).expect("our own encoding is understood");
        // By bytes, since NaN is not equal to itself.
        assert_eq!(again.to_bytes(), encoded);
    }
});
