//! Why a miner's TLS was not accepted, in words that tell it what to renew. Pure.

use std::io;

use rustls::{CertificateError, Error};

/// What TLS itself objected to; none when the connection broke for another reason.
pub(super) fn explain(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(problem) => format!("TLS: {} ({problem})", certificate(problem)),
        Error::NoCertificatesPresented => "TLS: the miner shows no certificate".to_owned(),
        Error::InvalidMessage(_) => format!("TLS: what answers there does not speak TLS ({error})"),
        Error::AlertReceived(alert) => format!("TLS: the miner refused the handshake ({alert:?})"),
        other => format!("TLS: {other}"),
    })
}

fn certificate(problem: &CertificateError) -> &'static str {
    use CertificateError as Problem;
    match problem {
        Problem::Expired | Problem::ExpiredContext { .. } => "the certificate has expired",
        Problem::NotValidYet | Problem::NotValidYetContext { .. } => "the certificate is not valid yet",
        Problem::NotValidForName | Problem::NotValidForNameContext { .. } => {
            "the certificate is for another name than the endpoint's"
        }
        Problem::UnknownIssuer => {
            "nobody who is trusted has signed the certificate: it is self-signed, or lacks its chain"
        }
        Problem::Revoked => "the certificate was revoked",
        _ => "the certificate cannot be verified",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_tls_objects_to_is_about_tls() {
        assert_eq!(explain(&io::ErrorKind::ConnectionReset.into()), None);
        assert_eq!(explain(&io::Error::other("tls handshake eof")), None);
        let expired = io::Error::new(io::ErrorKind::InvalidData, Error::from(CertificateError::Expired));
        assert!(explain(&expired).unwrap().starts_with("TLS: the certificate has expired ("));
    }
}
