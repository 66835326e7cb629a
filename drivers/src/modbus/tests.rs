//! The bus against a hand-driven line. Real units are pymodbus's, in the workspace's end-to-end tests.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;

const TIMEOUT: Duration = Duration::from_millis(500);

fn bus() -> (Bus<DuplexStream>, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(4096);
    (Bus::new(ours, 19_200), theirs)
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut crc = 0xffff_u16;
    for byte in body {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0xa001
            } else {
                crc >> 1
            };
        }
    }
    [body, &crc.to_le_bytes()].concat()
}

/// Answers one request of eight bytes, or keeps silent.
async fn answer(unit: &mut DuplexStream, bytes: &[u8]) -> Vec<u8> {
    let mut request = vec![0; 8];
    unit.read_exact(&mut request).await.unwrap();
    unit.write_all(bytes).await.unwrap();
    request
}

async fn ask(bus: &mut Bus<DuplexStream>) -> Result<Answer, BusError> {
    bus.read(17, ReadFunction::HoldingRegisters, 0x006b, 2, TIMEOUT)
        .await
}

#[tokio::test]
async fn a_read_is_the_frame_of_the_specification() {
    let (mut bus, mut unit) = bus();
    let good = frame(&[17, 3, 4, 0x02, 0x2b, 0x00, 0x64]);
    let (read, request) = tokio::join!(ask(&mut bus), answer(&mut unit, &good));
    assert_eq!(read.unwrap(), Answer::Words(vec![0x022b, 0x0064]));
    assert_eq!(request, frame(&[17, 3, 0x00, 0x6b, 0x00, 0x02]));
}

#[tokio::test]
async fn each_failure_is_told_apart_and_the_bus_goes_on() {
    let (mut bus, mut unit) = bus();
    let good = frame(&[17, 3, 4, 0, 1, 0, 2]);
    let mut broken = good.clone();
    broken[4] ^= 0x40;
    for (bytes, is_expected) in [
        (
            vec![],
            (|error| matches!(error, BusError::Silent(_))) as fn(&BusError) -> bool,
        ),
        (broken, |error| {
            matches!(error, BusError::Garbled { bytes: 9, .. })
        }),
        (vec![0xff; 80], |error| {
            matches!(error, BusError::Garbled { .. })
        }),
        (frame(&[18, 3, 4, 0, 1, 0, 2]), |error| {
            matches!(error, BusError::Mismatch)
        }),
        (frame(&[17, 4, 4, 0, 1, 0, 2]), |error| {
            matches!(error, BusError::Mismatch)
        }),
        (frame(&[17, 3, 2, 0, 1]), |error| {
            matches!(error, BusError::Mismatch)
        }),
        (frame(&[17, 0x83, 2]), |error| {
            matches!(error, BusError::Exception(2))
        }),
    ] {
        let (read, _) = tokio::join!(ask(&mut bus), answer(&mut unit, &bytes));
        let error = read.unwrap_err();
        assert!(is_expected(&error), "{bytes:02x?}: {error:?}");
        let (read, _) = tokio::join!(ask(&mut bus), answer(&mut unit, &good));
        assert_eq!(
            read.unwrap(),
            Answer::Words(vec![1, 2]),
            "after {bytes:02x?}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_comes_late_is_not_taken_for_the_next_one() {
    let (mut bus, mut unit) = bus();
    let (read, _) = tokio::join!(ask(&mut bus), answer(&mut unit, &[]));
    assert!(matches!(read.unwrap_err(), BusError::Silent(_)));
    unit.write_all(&frame(&[17, 3, 4, 0, 1, 0, 1]))
        .await
        .unwrap();
    let fresh = frame(&[17, 3, 4, 0, 2, 0, 2]);
    let (read, _) = tokio::join!(ask(&mut bus), answer(&mut unit, &fresh));
    assert_eq!(read.unwrap(), Answer::Words(vec![2, 2]));
}

#[tokio::test]
async fn a_write_must_be_echoed() {
    let (mut bus, mut unit) = bus();
    let write = Write::Register(1, 3);
    let echo = frame(&[17, 6, 0, 1, 0, 3]);
    let (wrote, _) = tokio::join!(bus.write(17, &write, TIMEOUT), answer(&mut unit, &echo));
    wrote.unwrap();
    let other = frame(&[17, 6, 0, 1, 0, 4]);
    let (wrote, _) = tokio::join!(bus.write(17, &write, TIMEOUT), answer(&mut unit, &other));
    assert!(matches!(wrote.unwrap_err(), BusError::Mismatch));
}

#[tokio::test]
async fn an_unplugged_line_is_the_lines_fault() {
    let (mut bus, unit) = bus();
    drop(unit);
    assert!(ask(&mut bus).await.unwrap_err().is_line());
}
