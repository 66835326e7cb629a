//! Something large reaches the device whole or not at all, and goes on where it stopped.

mod support;

use std::time::Duration;

use autoglm_protocol::transfer::{
    DeviceTransferEvent, HostTransferEvent, Offer, TransferDigest, TransferId,
};
use autoglm_protocol::{Config, Device, Fault, FaultCode, Host, LinkKind, Request};
use sha2::{Digest, Sha256};
use support::{DESCRIPTION, Faults, Pair};

const ID: TransferId = TransferId(77);
const BAD: Faults = Faults {
    loss: 0.1,
    duplication: 0.05,
    corruption: 0.05,
    bytes_per_second: Some(92_160),
    ..Faults::NONE
};

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

/// Both owners: one reads the image, the other has a flash.
#[derive(Default)]
struct Owners {
    image: Vec<u8>,
    written: Option<usize>,
    flash: Vec<u8>,
    offsets_wanted: Vec<u32>,
    outcome: Option<Result<(), Fault>>,
    device_end: Option<DeviceTransferEvent>,
    interruptions: u32,
}

impl Owners {
    fn serve(&mut self, pair: &mut Pair) {
        while let Some(event) = pair.device.poll_transfer() {
            match event {
                DeviceTransferEvent::Offered { id, .. } => {
                    let mut stored = TransferDigest::new();
                    stored.update(&self.flash);
                    pair.device
                        .accept_transfer(pair.now, id, stored)
                        .expect("just offered");
                }
                DeviceTransferEvent::Part { offset, bytes, .. } => {
                    assert_eq!(offset as usize, self.flash.len(), "without a gap");
                    self.flash.extend(bytes);
                }
                other => self.device_end = Some(other),
            }
        }
        while let Some(event) = pair.host.poll_transfer() {
            match event {
                HostTransferEvent::Wanted { offset, .. } => {
                    self.offsets_wanted.push(offset);
                    self.written = Some(offset as usize);
                }
                HostTransferEvent::Finished { result, .. } => self.outcome = Some(result),
                HostTransferEvent::Interrupted { .. } => {
                    self.interruptions += 1;
                    self.written = None;
                }
            }
        }
        while let Some(written) = self.written
            && written < self.image.len()
        {
            let rest = &self.image[written..];
            let Ok(taken @ 1..) = pair.host.write_transfer(pair.now, ID, rest) else {
                break;
            };
            self.written = Some(written + taken);
        }
    }

    #[track_caller]
    fn run_until_done(&mut self, pair: &mut Pair) {
        pair.run_until("transferred", Duration::from_secs(600), |pair| {
            self.serve(pair);
            self.outcome.is_some()
        });
        self.serve(pair);
    }
}

fn pair(config: Config, faults: Faults, seed: u64) -> Pair {
    let link = LinkKind::Stream;
    let host = Host::new(Config::default(), link, 7, 1);
    let device = Device::new(config, link, 9, 1, DESCRIPTION);
    let mut pair = Pair::with_machines(host, device, link, faults, seed);
    pair.connect();
    pair
}

#[test]
fn an_image_comes_whole_over_a_bad_line_even_to_a_small_device() {
    for (config, bytes) in [
        (Config::default(), 600_000),
        (Config::constrained(), 60_000),
        (Config::default(), 0),
    ] {
        let mut pair = pair(config, BAD, 3);
        let mut owners = Owners {
            image: image(bytes),
            ..Owners::default()
        };
        pair.host
            .offer_transfer(pair.now, ID, &offer_of(&owners.image))
            .expect("taken");
        owners.run_until_done(&mut pair);
        assert_eq!(owners.outcome, Some(Ok(())));
        assert_eq!(
            owners.device_end,
            Some(DeviceTransferEvent::Complete { id: ID })
        );
        assert!(owners.flash == owners.image);
    }
}

#[test]
fn an_interrupted_transfer_goes_on_where_it_stopped() {
    let mut pair = pair(Config::default(), BAD, 4);
    let mut owners = Owners {
        image: image(300_000),
        ..Owners::default()
    };
    let offer = offer_of(&owners.image);
    pair.host
        .offer_transfer(pair.now, ID, &offer)
        .expect("taken");
    pair.run_until("half", Duration::from_secs(600), |pair| {
        owners.serve(pair);
        owners.flash.len() > 100_000
    });
    pair.cut();
    pair.host.change_link(pair.now, LinkKind::Stream);
    pair.run_for(Duration::from_secs(1));
    pair.connect();
    owners.serve(&mut pair);
    assert_eq!(owners.interruptions, 1);
    let stored = owners.flash.len();
    pair.host
        .offer_transfer(pair.now, ID, &offer)
        .expect("taken");
    owners.run_until_done(&mut pair);
    assert_eq!(owners.outcome, Some(Ok(())));
    assert_eq!(owners.offsets_wanted, [0, stored as u32]);
    assert!(owners.flash == owners.image);
}

#[test]
fn what_does_not_match_its_hash_is_refused_and_called_worthless() {
    let mut pair = pair(Config::default(), Faults::NONE, 5);
    let mut owners = Owners {
        image: image(10_000),
        // Of another image: the hash over all will tell.
        flash: vec![0xFF; 5_000],
        ..Owners::default()
    };
    let offer = offer_of(&owners.image);
    pair.host
        .offer_transfer(pair.now, ID, &offer)
        .expect("taken");
    owners.run_until_done(&mut pair);
    let code = owners
        .outcome
        .map(|outcome| outcome.map_err(|fault| fault.code));
    assert_eq!(code, Some(Err(FaultCode::HashMismatch)));
    let end = DeviceTransferEvent::Ended {
        id: ID,
        is_worthless: true,
    };
    assert_eq!(owners.device_end, Some(end));
}

#[test]
fn a_second_transfer_is_refused_and_a_given_up_one_ends_at_both_ends() {
    let mut pair = pair(Config::default(), Faults::NONE, 6);
    let mut owners = Owners {
        image: image(400_000),
        ..Owners::default()
    };
    let offer = offer_of(&owners.image);
    pair.host
        .offer_transfer(pair.now, ID, &offer)
        .expect("taken");
    pair.run_until("begun", Duration::from_secs(10), |pair| {
        owners.serve(pair);
        !owners.flash.is_empty()
    });
    pair.host
        .offer_transfer(pair.now, TransferId(78), &offer)
        .expect("taken");
    owners.written = None;
    owners.run_until_done(&mut pair);
    let code = owners
        .outcome
        .take()
        .map(|outcome| outcome.map_err(|fault| fault.code));
    assert_eq!(code, Some(Err(FaultCode::Busy)));

    pair.host.abort_transfer(pair.now, ID);
    pair.run_until("ended", Duration::from_secs(10), |pair| {
        owners.serve(pair);
        owners.device_end.is_some()
    });
    assert!(
        pair.ask(1, Request::Describe).is_ok(),
        "and the connection lives"
    );
}
