//! Answers the requests of whoever holds a unit's port, and says how far each got that failed.

use std::time::{Duration, Instant};

use autoglm_drivers::modbus::{BusError, OpenBus};
use autoglm_drivers::port::{Answer, Command, PortError};
use autoglm_protocol::{DeliveryState, Fault, FaultCode, Request, RequestFailure};

use super::Owner;
use super::exchange::{AskError, Refusal, carry_out, exception};
use crate::things::binding::modbus::PointError;

impl Owner {
    /// Serves one request. An error is the line's.
    pub(super) async fn on_command(
        &mut self,
        bus: &mut OpenBus,
        index: usize,
        command: Command,
    ) -> Result<(), BusError> {
        let asked = Instant::now();
        let Some(unit) = self.units.get(index) else {
            return Ok(());
        };
        let is_read = matches!(
            command.request,
            Request::Read { .. } | Request::Observe { .. }
        );
        let result = carry_out(bus, &self.config, unit, command.request, command.deadline).await;
        let (answer, lost) = match result {
            Ok(reply) => {
                self.heard(index);
                (Ok(reply), Ok(()))
            }
            Err(Refusal::Fault(fault)) => {
                (Err(PortError::Failed(RequestFailure::Fault(fault))), Ok(()))
            }
            Err(Refusal::Ask(AskError::Point(error))) => {
                self.heard(index);
                let code = if matches!(error, PointError::Encode(_)) {
                    FaultCode::OutOfRange
                } else {
                    FaultCode::Failed
                };
                (Err(fault(code, error.to_string())), Ok(()))
            }
            Err(Refusal::Ask(AskError::Bus(BusError::Exception(code)))) => {
                if matches!(code, 10 | 11) {
                    self.missed(index).await;
                } else {
                    self.heard(index);
                }
                (
                    Err(PortError::Failed(RequestFailure::Fault(exception(code)))),
                    Ok(()),
                )
            }
            Err(Refusal::Ask(AskError::Bus(error))) => {
                self.complaints.say(&self.name(index), &error);
                let delivered = if is_read {
                    DeliveryState::NotSent
                } else {
                    DeliveryState::Sent
                };
                if error.is_line() {
                    (
                        Err(PortError::Failed(RequestFailure::ConnectionLost {
                            delivered,
                        })),
                        Err(error),
                    )
                } else {
                    self.missed(index).await;
                    // It was sent, and nobody knows whether it was heard.
                    (
                        Err(PortError::Failed(RequestFailure::DeadlineExceeded {
                            delivered: DeliveryState::Sent,
                        })),
                        Ok(()),
                    )
                }
            }
        };
        let took = asked.elapsed();
        // Whoever asked may have given up waiting; the unit acted all the same.
        let _ = command.reply.send(answer.map(|reply| Answer {
            reply,
            written_after: Duration::ZERO,
            answered_after: took,
        }));
        lost
    }
}

fn fault(code: FaultCode, words: String) -> PortError {
    PortError::Failed(RequestFailure::Fault(Fault::new(code, words)))
}
