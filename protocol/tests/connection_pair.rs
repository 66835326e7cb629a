//! Two machines on a bad line: what is promised holds for every seed.

mod support;

use std::time::Duration;

use autoglm_protocol::{HostEvent, LinkKind, Reply, Request, RequestId, Value};
use support::{DESCRIPTION, Faults, Pair};

#[test]
fn a_good_line_connects_and_every_kind_of_request_is_answered() {
    for link in [
        LinkKind::Stream,
        LinkKind::Datagram { mtu: 20 },
        LinkKind::Datagram { mtu: 65_536 },
    ] {
        let mut pair = Pair::new(link, Faults::NONE, 1);
        pair.connect();
        let Some(HostEvent::Connected { peer }) = pair.host_events.first().cloned() else {
            panic!("first event is {:?}", pair.host_events.first())
        };
        assert_eq!((peer.boot_id, peer.version), (0xD0D0_0001, 1));

        let Ok(Reply::Description { hash, document }) = pair.ask(1, Request::Describe) else {
            panic!("no description")
        };
        assert_eq!(document, DESCRIPTION);
        assert_eq!(Some(hash), peer.description_hash);

        let read = pair.ask(
            2,
            Request::Read {
                property: "brightness".into(),
            },
        );
        assert_eq!(read, Ok(Reply::Value("value of brightness".into())));
        let write = pair.ask(
            3,
            Request::Write {
                property: "brightness".into(),
                value: Value::Int(40),
            },
        );
        assert_eq!(write, Ok(Reply::Done(Value::Null)));
        let input = Value::Map(vec![("level".into(), Value::Int(40))]);
        let invoke = pair.ask(
            4,
            Request::Invoke {
                action: "echo".into(),
                input: input.clone(),
            },
        );
        assert_eq!(invoke, Ok(Reply::Done(input)));
        assert_eq!(pair.executed.get(&RequestId(3)), Some(&1));
        assert_eq!(pair.executed.get(&RequestId(4)), Some(&1));
        pair.run_for(Duration::from_secs(100));
        assert!(
            pair.is_connected(),
            "an idle connection lives on: {:?}",
            pair.host_events
        );
    }
}
