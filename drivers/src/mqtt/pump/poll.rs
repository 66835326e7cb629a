//! rumqttc's event loop, polled by a task of its own that ends with its connection.

use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{ConnectionError, Event, EventLoop};
use tokio::sync::mpsc;

/// Ends the polling task with the connection that it belongs to.
pub(super) struct AbortOnDrop(pub(super) tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Hands on all that the event loop says, to the end of the connection.
pub(super) async fn poll(
    mut event_loop: EventLoop,
    events: mpsc::Sender<Result<Event, ConnectionError>>,
) {
    loop {
        let event = event_loop.poll().await;
        let is_over = event.is_err();
        if is_over {
            // rumqttc reports the end before what it had read until then. Acknowledgements among that spare the receivers a
            // repetition; messages come again, since nobody can acknowledge them any more.
            for read in std::mem::take(&mut event_loop.state.events) {
                if matches!(read, Event::Incoming(Packet::PubAck(_)))
                    && events.send(Ok(read)).await.is_err()
                {
                    return;
                }
            }
        }
        if events.send(event).await.is_err() || is_over {
            return;
        }
    }
}
