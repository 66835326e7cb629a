//! Something large reaches the other end whole or not at all, in both directions, and goes on where it stopped.

mod support;

use std::time::Duration;

use autoglm_protocol::frame::StreamDecoder;
use autoglm_protocol::segment::Channel;
use autoglm_protocol::transfer::{
    EndReason, NotOffered, Offer, OfferError, TransferDigest, TransferEvent, TransferId, Transfers,
    WriteError,
};
use autoglm_protocol::wire::{Header, Kind};
use autoglm_protocol::{
    Config, Device, Fault, FaultCode, Host, LinkKind, Request, RequestId, Value,
};
use sha2::{Digest, Sha256};
use support::{DESCRIPTION, End, Faults, Pair};

const BAD: Faults = Faults {
    loss: 0.1,
    duplication: 0.05,
    corruption: 0.05,
    bytes_per_second: Some(92_160),
    ..Faults::NONE
};
const LONG: Duration = Duration::from_secs(600);

fn config() -> Config {
    Config {
        transfer_bytes_max: 1 << 20,
        ..Config::default()
    }
}

fn image(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * at / 7) as u8).collect()
}

fn offer_of(image: &[u8]) -> Offer {
    Offer {
        name: "firmware".into(),
        length: image.len() as u32,
        hash: Sha256::digest(image).into(),
    }
}

fn other(end: End) -> End {
    match end {
        End::Host => End::Device,
        End::Device => End::Host,
    }
}

fn transfers(pair: &mut Pair, end: End) -> Transfers<'_> {
    match end {
        End::Host => pair.host.transfers(),
        End::Device => pair.device.transfers(),
    }
}

/// Both owners of one direction: one reads the image, the other has a flash.
struct Owners {
    from: End,
    image: Vec<u8>,
    id: Option<TransferId>,
    /// How far the image is written, while it is wanted.
    written: Option<usize>,
    flash: Vec<u8>,
    offsets_wanted: Vec<u32>,
    outcome: Option<Result<(), Fault>>,
    /// What the taking end heard, but for the parts.
    heard: Vec<TransferEvent>,
    interruptions: u32,
    confirms: bool,
}

impl Owners {
    fn new(from: End, bytes: usize) -> Self {
        Self {
            from,
            image: image(bytes),
            id: None,
            written: None,
            flash: Vec::new(),
            offsets_wanted: Vec::new(),
            outcome: None,
            heard: Vec::new(),
            interruptions: 0,
            confirms: true,
        }
    }

    #[track_caller]
    fn offer(&mut self, pair: &mut Pair) -> TransferId {
        let (now, offer) = (pair.now, offer_of(&self.image));
        let id = transfers(pair, self.from).offer(now, &offer);
        let id = id.expect("the offer is taken");
        self.id = Some(id);
        id
    }

    fn serve(&mut self, pair: &mut Pair) {
        let now = pair.now;
        let mut taking = transfers(pair, other(self.from));
        while let Some(event) = taking.poll() {
            match &event {
                TransferEvent::Offered { id, .. } => {
                    let mut stored = TransferDigest::new();
                    stored.update(&self.flash);
                    taking.accept(now, *id, stored).expect("just offered");
                }
                TransferEvent::Part { offset, bytes, .. } => {
                    assert_eq!(*offset as usize, self.flash.len(), "without a gap");
                    self.flash.extend(bytes);
                    continue;
                }
                TransferEvent::Complete { id } if self.confirms => {
                    taking.confirm(now, *id).expect("just complete");
                }
                _ => {}
            }
            self.heard.push(event);
        }
        let mut giving = transfers(pair, self.from);
        while let Some(event) = giving.poll() {
            match event {
                TransferEvent::Wanted { offset, .. } => {
                    self.offsets_wanted.push(offset);
                    self.written = Some(offset as usize);
                }
                TransferEvent::Finished { result, .. } => self.outcome = Some(result),
                TransferEvent::Interrupted { .. } => {
                    self.interruptions += 1;
                    self.written = None;
                }
                other => panic!("{other:?} at the offering end"),
            }
        }
        while let (Some(id), Some(written)) = (self.id, self.written)
            && written < self.image.len()
        {
            let Ok(taken @ 1..) = giving.write(now, id, &self.image[written..]) else {
                break;
            };
            self.written = Some(written + taken);
        }
    }

    #[track_caller]
    fn run_until_done(&mut self, pair: &mut Pair) {
        pair.run_until("transferred", LONG, |pair| {
            self.serve(pair);
            self.outcome.is_some()
        });
        self.serve(pair);
    }

    #[track_caller]
    fn run_until_stored(&mut self, pair: &mut Pair, bytes: usize) {
        pair.run_until("stored", LONG, |pair| {
            self.serve(pair);
            self.flash.len() >= bytes
        });
    }

    fn code(&self) -> Option<FaultCode> {
        match &self.outcome {
            Some(Err(fault)) => Some(fault.code),
            _ => None,
        }
    }

    fn ends(&self) -> Vec<EndReason> {
        let reason = |event: &TransferEvent| match event {
            TransferEvent::Ended { reason, .. } => Some(*reason),
            _ => None,
        };
        self.heard.iter().filter_map(reason).collect()
    }
}

fn pair_of(host: Config, device: Config, faults: Faults, seed: u64) -> Pair {
    let link = LinkKind::Stream;
    let host = Host::new(host, link, 7, 1);
    let device = Device::new(device, link, 9, 1, DESCRIPTION);
    let mut pair = Pair::with_machines(host, device, link, faults, seed);
    pair.connect();
    pair
}

fn pair(faults: Faults, seed: u64) -> Pair {
    pair_of(config(), config(), faults, seed)
}

#[test]
fn an_image_comes_whole_over_a_bad_line_in_both_directions_even_with_a_small_device() {
    for from in [End::Host, End::Device] {
        for (device, bytes) in [
            (config(), 600_000),
            (
                Config {
                    transfer_bytes_max: 60_000,
                    ..Config::constrained()
                },
                60_000,
            ),
            (config(), 0),
        ] {
            let mut pair = pair_of(config(), device, BAD, 3);
            let mut owners = Owners::new(from, bytes);
            let id = owners.offer(&mut pair);
            owners.run_until_done(&mut pair);
            assert_eq!(owners.outcome, Some(Ok(())));
            assert_eq!(
                owners.heard.last(),
                Some(&TransferEvent::Complete { id }),
                "{from:?}"
            );
            assert!(owners.flash == owners.image);
        }
    }
}

/// One machine's owner, of both directions.
fn serve_both(pair: &mut Pair, end: End, giving: &mut Owners, taking: &mut Owners) {
    let now = pair.now;
    let mut machine = transfers(pair, end);
    while let Some(event) = machine.poll() {
        match event {
            TransferEvent::Wanted { offset, .. } => giving.written = Some(offset as usize),
            TransferEvent::Finished { result, .. } => giving.outcome = Some(result),
            TransferEvent::Offered { id, offer } => {
                assert_eq!(offer, offer_of(&taking.image));
                let accepted = machine.accept(now, id, TransferDigest::new());
                accepted.expect("just offered");
            }
            TransferEvent::Part { bytes, .. } => taking.flash.extend(bytes),
            TransferEvent::Complete { id } => machine.confirm(now, id).expect("complete"),
            other => panic!("{other:?}"),
        }
    }
    while let (Some(id), Some(written)) = (giving.id, giving.written)
        && let Ok(taken @ 1..) = machine.write(now, id, &giving.image[written..])
    {
        giving.written = Some(written + taken);
    }
}

#[test]
fn both_directions_at_once_under_the_same_id_do_not_meet() {
    let mut pair = pair(BAD, 8);
    let mut down = Owners::new(End::Host, 90_000);
    let mut up = Owners::new(End::Device, 70_001);
    assert_eq!(down.offer(&mut pair), up.offer(&mut pair), "the same id");
    pair.run_until("both", LONG, |pair| {
        serve_both(pair, End::Host, &mut down, &mut up);
        serve_both(pair, End::Device, &mut up, &mut down);
        down.outcome.is_some() && up.outcome.is_some()
    });
    assert_eq!((down.outcome, up.outcome), (Some(Ok(())), Some(Ok(()))));
    assert!(down.flash == down.image && up.flash == up.image);
}

#[test]
fn an_interrupted_transfer_goes_on_where_it_stopped_over_another_link() {
    for from in [End::Host, End::Device] {
        let mut pair = pair(BAD, 4);
        let mut owners = Owners::new(from, 300_000);
        owners.offer(&mut pair);
        owners.run_until_stored(&mut pair, 100_000);
        pair.cut();
        let ble = LinkKind::Datagram { mtu: 244 };
        pair.link = ble;
        pair.host.change_link(pair.now, ble);
        pair.device.change_link(pair.now, ble);
        pair.run_for(Duration::from_secs(1));
        pair.connect();
        owners.serve(&mut pair);
        assert_eq!(owners.interruptions, 1);
        assert_eq!(owners.ends(), [EndReason::ConnectionLost]);
        let stored = owners.flash.len();
        owners.offer(&mut pair);
        owners.run_until_done(&mut pair);
        assert_eq!(owners.outcome, Some(Ok(())));
        assert_eq!(owners.offsets_wanted, [0, stored as u32]);
        assert!(owners.flash == owners.image);
    }
}

#[test]
fn a_resumed_connection_goes_on_with_its_transfer_as_if_nothing_had_happened() {
    for from in [End::Host, End::Device] {
        let config = Config {
            resume_window: Duration::from_secs(60),
            ..config()
        };
        let mut pair = pair_of(config.clone(), config, BAD, 4);
        let mut owners = Owners::new(from, 300_000);
        owners.offer(&mut pair);
        owners.run_until_stored(&mut pair, 100_000);
        pair.cut();
        let ble = LinkKind::Datagram { mtu: 100 };
        pair.link = ble;
        pair.host.change_link(pair.now, ble);
        pair.device.change_link(pair.now, ble);
        owners.run_until_done(&mut pair);
        assert_eq!(owners.outcome, Some(Ok(())));
        assert_eq!(owners.offsets_wanted, [0], "asked for once");
        assert_eq!((owners.interruptions, owners.ends()), (0, vec![]));
        assert!(owners.flash == owners.image);
    }
}

#[test]
fn what_does_not_match_its_hash_is_refused_and_called_worthless() {
    for from in [End::Host, End::Device] {
        let mut pair = pair(Faults::NONE, 5);
        let mut owners = Owners::new(from, 10_000);
        // Of another image: the hash over all will tell.
        owners.flash = vec![0xFF; 5_000];
        owners.offer(&mut pair);
        owners.run_until_done(&mut pair);
        assert_eq!(owners.code(), Some(FaultCode::HashMismatch));
        assert_eq!(owners.ends(), [EndReason::HashMismatch]);
    }
}

#[test]
fn success_is_told_only_when_the_taking_owner_has_confirmed_it() {
    for from in [End::Host, End::Device] {
        let mut pair = pair(Faults::NONE, 5);
        let mut owners = Owners::new(from, 10_000);
        owners.confirms = false;
        let id = owners.offer(&mut pair);
        owners.run_until_stored(&mut pair, 10_000);
        for _ in 0..100 {
            pair.run_for(Duration::from_millis(100));
            owners.serve(&mut pair);
        }
        assert_eq!(owners.outcome, None, "nobody confirmed");
        let taking = other(from);
        let complete = TransferEvent::Complete { id };
        assert_eq!(owners.heard.last(), Some(&complete));
        let full = Fault::new(FaultCode::Failed, "the flash is worn out");
        let now = pair.now;
        transfers(&mut pair, taking)
            .refuse(now, id, full.clone())
            .expect("still open");
        owners.run_until_done(&mut pair);
        assert_eq!(owners.outcome, Some(Err(full)));

        // What is stored already is offered again, and confirmed without a byte being sent.
        owners.outcome = None;
        owners.confirms = true;
        owners.offer(&mut pair);
        owners.run_until_done(&mut pair);
        assert_eq!(owners.outcome, Some(Ok(())));
        assert_eq!(owners.offsets_wanted, [0, 10_000]);
    }
}

#[test]
fn an_offer_beyond_the_limit_is_refused_before_its_owner_hears_of_it() {
    for from in [End::Host, End::Device] {
        let config = Config {
            transfer_bytes_max: 9_999,
            ..config()
        };
        let mut pair = pair_of(config.clone(), config, Faults::NONE, 5);
        let mut owners = Owners::new(from, 10_000);
        owners.offer(&mut pair);
        owners.run_until_done(&mut pair);
        assert_eq!(owners.code(), Some(FaultCode::TransferTooLarge));
        assert_eq!(owners.heard, []);
        let mut owners = Owners::new(from, 9_999);
        owners.offer(&mut pair);
        owners.run_until_done(&mut pair);
        assert_eq!(owners.outcome, Some(Ok(())));
    }
}

#[test]
fn a_given_up_transfer_ends_at_both_ends_and_the_next_offer_comes_after_it() {
    for from in [End::Host, End::Device] {
        let mut pair = pair(Faults::NONE, 6);
        let mut owners = Owners::new(from, 400_000);
        let id = owners.offer(&mut pair);
        owners.run_until_stored(&mut pair, 1);
        let now = pair.now;
        let mut giving = transfers(&mut pair, from);
        let offer = offer_of(&owners.image);
        assert_eq!(giving.offer(now, &offer), Err(OfferError::Busy));
        giving.abort(now, id);
        assert_eq!(
            giving.write(now, id, b"more"),
            Err(WriteError::NotWanted(id))
        );
        owners.written = None;
        // The queue may be full of parts; then the abort waits, and the offer behind it.
        pair.run_until("offered", LONG, |pair| {
            owners.serve(pair);
            let now = pair.now;
            owners.id = transfers(pair, from).offer(now, &offer).ok();
            owners.id.is_some()
        });
        owners.run_until_done(&mut pair);
        assert_eq!(owners.outcome, Some(Ok(())));
        assert_eq!(owners.ends(), [EndReason::Aborted]);
        assert!(owners.flash == owners.image);
        assert!(
            pair.ask(1, Request::Describe).is_ok(),
            "and the connection lives"
        );
    }
}

#[test]
fn calls_at_the_wrong_time_are_refused_by_name() {
    for from in [End::Host, End::Device] {
        let mut pair = pair(Faults::NONE, 6);
        let now = pair.now;
        let taking = other(from);
        let nobody = TransferId(99);
        let nothing = TransferDigest::new;
        let fault = || Fault::new(FaultCode::Denied, "");
        let mut at = transfers(&mut pair, taking);
        assert_eq!(at.accept(now, nobody, nothing()), Err(NotOffered(nobody)));
        assert_eq!(at.refuse(now, nobody, fault()), Err(NotOffered(nobody)));
        assert_eq!(at.confirm(now, nobody), Err(NotOffered(nobody)));
        let long = Offer {
            name: "n".repeat(129),
            ..offer_of(b"")
        };
        let mut at = transfers(&mut pair, from);
        assert_eq!(at.offer(now, &long), Err(OfferError::OutOfBounds));
        let id = at.offer(now, &offer_of(b"four")).expect("taken");
        assert_eq!(at.write(now, id, b"four"), Err(WriteError::NotWanted(id)));
        pair.run_for(Duration::from_secs(1));
        let now = pair.now;
        let mut at = transfers(&mut pair, taking);
        assert_eq!(at.confirm(now, id), Err(NotOffered(id)), "not complete");
        at.accept(now, id, nothing()).expect("offered");
        assert_eq!(at.accept(now, id, nothing()), Err(NotOffered(id)));
        pair.run_for(Duration::from_secs(1));
        let (now, beyond) = (pair.now, WriteError::BeyondEnd { actual: 5, left: 4 });
        let mut at = transfers(&mut pair, from);
        assert_eq!(at.write(now, id, b"fours"), Err(beyond));
        assert_eq!(at.write(now, id, b"four"), Ok(4));
    }
    let mut alone = Host::new(config(), LinkKind::Stream, 1, 1);
    let offered = alone
        .transfers()
        .offer(autoglm_protocol::Instant::ZERO, &offer_of(b""));
    assert_eq!(offered, Err(OfferError::NotConnected));
}

#[test]
fn a_taking_owner_that_fetches_nothing_stops_the_transfer_and_loses_nothing() {
    for from in [End::Host, End::Device] {
        let mut pair = pair(Faults::NONE, 6);
        let mut owners = Owners::new(from, 900_000);
        owners.offer(&mut pair);
        owners.run_until_stored(&mut pair, 1);
        let stored = owners.flash.len();
        // The offering owner goes on writing as far as there is room; the other one sleeps.
        for _ in 0..100 {
            pair.run_for(Duration::from_millis(200));
            let (now, id) = (pair.now, owners.id.expect("offered"));
            while let Some(written) = owners.written
                && let Ok(taken @ 1..) =
                    transfers(&mut pair, from).write(now, id, &owners.image[written..])
            {
                owners.written = Some(written + taken);
            }
        }
        let written = owners.written.expect("wanted") - stored;
        let limit = config().receive_backlog_bytes + config().send_queue_bytes + 64 * 512;
        assert!(written < limit, "{written} bytes on their way");
        owners.run_until_done(&mut pair);
        assert!(owners.flash == owners.image);
    }
}

#[test]
fn an_owner_who_asked_for_no_transfers_gets_none_and_the_other_end_is_told() {
    for from in [End::Host, End::Device] {
        let mut pair = pair_of(Config::default(), Config::default(), Faults::NONE, 5);
        for bytes in [0, 10] {
            let mut owners = Owners::new(from, bytes);
            owners.offer(&mut pair);
            owners.run_until_done(&mut pair);
            assert_eq!(owners.code(), Some(FaultCode::Unsupported));
            assert_eq!(owners.heard, []);
        }
    }
}

/// What an end sends next.
fn next_packet(pair: &mut Pair, end: End) -> Option<(Kind, Channel)> {
    let mut frame = Vec::new();
    match end {
        End::Host => pair.host.poll_transmit(pair.now, &mut frame),
        End::Device => pair.device.poll_transmit(pair.now, &mut frame),
    };
    let (packet, _) = StreamDecoder::new(512).next_packet(&frame)?;
    let (header, _) = Header::decode(&packet).expect("our own");
    Some((header.kind, header.flags.channel))
}

#[test]
fn everything_else_goes_before_the_waiting_parts_of_a_transfer() {
    for from in [End::Host, End::Device] {
        let mut pair = pair(Faults::NONE, 6);
        let mut owners = Owners::new(from, 900_000);
        owners.offer(&mut pair);
        owners.run_until_stored(&mut pair, 10_000);
        let waiting = owners.written.expect("wanted") - owners.flash.len();
        assert!(waiting > 100_000, "only {waiting} bytes of parts wait");
        while let Some((_, channel)) = next_packet(&mut pair, from) {
            assert_ne!(channel, Channel::Command);
        }
        let read = Request::Read {
            property: "level".into(),
        };
        let (now, id, deadline) = (pair.now, RequestId(1), Duration::from_secs(60));
        match from {
            End::Host => pair.host.request(now, id, read, deadline).expect("room"),
            End::Device => {
                let raised = pair.device.event(now, "pressed", Value::Null);
                raised.expect("room");
            }
        }
        let urgent = match from {
            End::Host => Channel::Command,
            End::Device => Channel::Event,
        };
        assert_eq!(next_packet(&mut pair, from), Some((Kind::Data, urgent)));
    }
}
