//! Why a connection to a broker ended: in words that lead to a remedy, and in a kind that decides how long to rest.

use std::time::Duration;

use rumqttc::TlsError;
use rumqttc::v5::mqttbytes::v5::{ConnAckProperties, ConnectReturnCode, DisconnectReasonCode};
use rumqttc::v5::{ConnectionError, StateError};
use rustls::{AlertDescription, CertificateError, Error as Tls};

use super::access::AccessError;
use crate::backoff::Backoff;

/// What it takes for the next try to go better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Time: the broker or the way to it is away.
    Away,
    /// The broker has too much to do, and says so.
    Overloaded,
    /// Somebody must change something, here or there: credentials, certificates, configuration.
    Unwelcome,
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) cause: String,
}

impl Failure {
    pub(super) fn away(cause: impl Into<String>) -> Self {
        Self {
            kind: Kind::Away,
            cause: cause.into(),
        }
    }

    pub(super) fn unwelcome(cause: impl Into<String>) -> Self {
        Self {
            kind: Kind::Unwelcome,
            cause: cause.into(),
        }
    }

    fn overloaded(cause: impl Into<String>) -> Self {
        Self {
            kind: Kind::Overloaded,
            cause: cause.into(),
        }
    }
}

/// The rest before try number `attempt` (0 for the first retry), given `random` in `[0, 1)`. A broker that refuses us is not asked
/// again and again: what must change there takes a person, and each try costs both sides a handshake.
pub(super) fn rest(kind: Kind, backoff: Backoff, attempt: u32, random: f64) -> Duration {
    let usual = backoff.delay(attempt, random);
    match kind {
        Kind::Away => usual,
        Kind::Overloaded => usual.max(backoff.max.mul_f64(0.125 + 0.375 * random)),
        Kind::Unwelcome => usual.max(backoff.max.mul_f64(0.5 + 0.5 * random)),
    }
}

impl Failure {
    /// What a connection over TLS adds that ended before the broker's first word: a broker that hangs up says no more than that.
    pub(super) fn in_handshake(mut self, error: &ConnectionError) -> Self {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        let is_hang_up = match error {
            ConnectionError::Io(error)
            | ConnectionError::Tls(TlsError::Io(error))
            | ConnectionError::MqttState(StateError::Io(error))
            | ConnectionError::MqttState(StateError::Deserialization(
                rumqttc::v5::mqttbytes::Error::Io(error),
            )) => matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof),
            ConnectionError::MqttState(StateError::ConnectionAborted) => true,
            _ => false,
        };
        if self.kind == Kind::Away && is_hang_up {
            self.cause.push_str(
                " before it spoke TLS to us; is this its TLS port (8883 as a rule), and does it accept our certificate?",
            );
        }
        self
    }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Self {
        let mut cause = error.to_string();
        let mut next = std::error::Error::source(&error);
        while let Some(source) = next {
            cause = format!("{cause}: {source}");
            next = source.source();
        }
        Self::unwelcome(cause)
    }
}

impl From<&ConnectionError> for Failure {
    fn from(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::Io(error) | ConnectionError::Tls(TlsError::Io(error)) => of_io(error),
            ConnectionError::Tls(TlsError::TLS(error)) => of_tls(error),
            ConnectionError::Tls(TlsError::DNSName(_)) => Self::unwelcome(
                "the broker's host is no name that a certificate can carry; write its DNS name or address",
            ),
            ConnectionError::Timeout(_) => Self::away("no answer in time"),
            ConnectionError::ConnectionRefused(code) => of_refusal(*code),
            ConnectionError::MqttState(StateError::ServerDisconnect {
                reason_code,
                reason_string,
            }) => of_disconnect(*reason_code, reason_string.as_deref()),
            ConnectionError::MqttState(StateError::Io(error)) => of_io(error),
            ConnectionError::MqttState(StateError::Deserialization(
                rumqttc::v5::mqttbytes::Error::Io(error),
            )) => of_io(error),
            ConnectionError::MqttState(StateError::ConnectionAborted) => {
                Self::away("the broker closed the connection without a word")
            }
            ConnectionError::MqttState(StateError::AwaitPingResp) => {
                Self::away("the broker answers no more (keep-alive)")
            }
            other => Self::away(other.to_string()),
        }
    }
}

/// rustls reports through `std::io::Error`; what it says is inside.
fn of_io(error: &std::io::Error) -> Failure {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Tls>())
    {
        Some(tls) => of_tls(tls),
        None => Failure::away(error.to_string()),
    }
}

fn of_tls(error: &Tls) -> Failure {
    let cause = match error {
        Tls::InvalidCertificate(why) => return of_certificate(why),
        Tls::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired => {
                "the broker asks for a client certificate; set tls.certificate and tls.key for it"
            }
            AlertDescription::CertificateExpired => {
                "the broker says that our certificate has expired; renew it, and compare the clocks"
            }
            AlertDescription::CertificateRevoked => {
                "the broker says that our certificate was revoked; take a new one"
            }
            AlertDescription::UnknownCA => {
                "the broker does not know the authority that signed our certificate; take one that it trusts"
            }
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied => {
                "the broker refuses our certificate; see its log for the reason"
            }
            AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => {
                "the broker does not speak TLS 1.3; switch it on there"
            }
            alert => return Failure::unwelcome(format!("the broker broke off TLS: {alert:?}")),
        },
        Tls::PeerIncompatible(why) => {
            return Failure::unwelcome(format!(
                "the broker does not speak our TLS 1.3 ({why:?}); switch it on there"
            ));
        }
        Tls::InvalidMessage(_) => {
            "the broker does not speak TLS on this port; take its TLS port, 8883 as a rule"
        }
        other => return Failure::unwelcome(format!("TLS: {other}")),
    };
    Failure::unwelcome(cause)
}

fn of_certificate(why: &CertificateError) -> Failure {
    let cause = match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the broker's certificate has expired; renew it there".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the broker's certificate is not valid yet; is this box's clock right?".to_owned()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the broker's certificate is not signed by the authority in its tls.ca; is it the right file, and the right broker?"
                .to_owned()
        }
        CertificateError::NotValidForName => {
            "the broker's certificate is for another name".to_owned()
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "the broker's certificate is not for {}, but for {}; connect to that name, or have the certificate made for this one",
            expected.to_str(),
            presented.join(", ")
        ),
        CertificateError::Revoked => "the broker's certificate was revoked".to_owned(),
        other => format!("the broker's certificate is not good: {other}"),
    };
    Failure::unwelcome(cause)
}

/// What a refusal in CONNACK asks for (MQTT 5 §3.2.2.2).
fn of_refusal(code: ConnectReturnCode) -> Failure {
    use ConnectReturnCode as Code;
    match code {
        Code::BadUserNamePassword => Failure::unwelcome(
            "the broker refuses user name or password; compare its login here with the broker's users",
        ),
        Code::NotAuthorized => Failure::unwelcome(
            "the broker says that this box is not authorised; give it the right to connect there, or a user and a password here",
        ),
        Code::Banned => Failure::unwelcome("the broker has banned this box"),
        Code::ClientIdentifierNotValid | Code::BadClientId => Failure::unwelcome(
            "the broker refuses our client id; allow `autoglm-edge-` with the box's id there",
        ),
        Code::UseAnotherServer | Code::ServerMoved => Failure::unwelcome(
            "the broker sends us to another one; write that one's address here (we do not follow by ourselves)",
        ),
        Code::ServerBusy | Code::ServerUnavailable | Code::ServiceUnavailable => {
            Failure::overloaded("the broker is busy or not ready")
        }
        Code::QuotaExceeded => Failure::overloaded("our quota at the broker is exceeded"),
        Code::ConnectionRateExceeded => {
            Failure::overloaded("the broker takes no more connections for now")
        }
        Code::RetainNotSupported => Failure::unwelcome(
            "the broker keeps no retained messages, which presence needs; switch them on there",
        ),
        Code::QoSNotSupported => Failure::unwelcome(
            "the broker does not take QoS 1, without which nothing is acknowledged; switch it on there",
        ),
        Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion => {
            Failure::unwelcome("the broker does not speak MQTT 5")
        }
        other => Failure::unwelcome(format!("the broker refuses the connection: {other:?}")),
    }
}

fn of_disconnect(code: DisconnectReasonCode, words: Option<&str>) -> Failure {
    use DisconnectReasonCode as Code;
    let said = words.map_or_else(String::new, |words| format!(" ({words})"));
    match code {
        Code::ServerBusy
        | Code::QuotaExceeded
        | Code::ConnectionRateExceeded
        | Code::MessageRateTooHigh => {
            Failure::overloaded(format!("the broker closed the connection: {code:?}{said}"))
        }
        Code::NotAuthorized | Code::AdministrativeAction => Failure::unwelcome(format!(
            "the broker closed the connection: {code:?}{said}; see its log"
        )),
        Code::SessionTakenOver => Failure::unwelcome(
            "somebody else connected to the broker with our client id; two boxes must not have the same box.id",
        ),
        Code::UseAnotherServer | Code::ServerMoved => {
            of_refusal(ConnectReturnCode::UseAnotherServer)
        }
        _ => Failure::away(format!("the broker closed the connection: {code:?}{said}")),
    }
}

/// Why a broker that accepted us is none for us.
pub(super) fn unsuitable(properties: &ConnAckProperties) -> Option<Failure> {
    if properties.max_qos == Some(0) {
        return Some(of_refusal(ConnectReturnCode::QoSNotSupported));
    }
    if properties.retain_available == Some(0) {
        return Some(of_refusal(ConnectReturnCode::RetainNotSupported));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        min: Duration::from_secs(1),
        max: Duration::from_secs(300),
        healthy_after: Duration::from_secs(300),
    };

    #[test]
    fn a_refusal_rests_long_from_the_first_time_on_and_never_longer_than_the_maximum() {
        for attempt in [0, 1, 9, u32::MAX] {
            for random in [0.0, 0.5, 0.999] {
                let away = rest(Kind::Away, BACKOFF, attempt, random);
                let overloaded = rest(Kind::Overloaded, BACKOFF, attempt, random);
                let unwelcome = rest(Kind::Unwelcome, BACKOFF, attempt, random);
                assert!(away <= overloaded && overloaded <= unwelcome);
                assert!(unwelcome <= BACKOFF.max);
                assert!(unwelcome >= Duration::from_secs(150), "{unwelcome:?}");
                assert!(overloaded >= Duration::from_secs(37), "{overloaded:?}");
            }
        }
    }

    #[test]
    fn alerts_are_found_inside_of_io_errors() {
        let alert = Tls::AlertReceived(AlertDescription::UnknownCA);
        let failure = of_io(&std::io::Error::new(std::io::ErrorKind::InvalidData, alert));
        assert_eq!(failure.kind, Kind::Unwelcome);
        assert!(failure.cause.contains("authority"), "{}", failure.cause);
    }
}
