//! How the API is guarded, as an operator has it: the settings, what is made of them, and the headers that every answer has.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method,
        header::{
            CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, LOCATION, REFERRER_POLICY, RETRY_AFTER,
            STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
        },
    },
    middleware,
};
use tokio_util::sync::CancellationToken;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{Any, CorsLayer},
    trace::TraceLayer,
};

use super::{
    client::Proxies,
    guard::{self, Guard, Reads},
    keys::Keys,
    problem::name_instance,
    rate::Rate,
    server::Entrance,
    tls::{Error, Tls},
};
use crate::config::Guarding;

/// For how long a browser asks for another origin's permission once only.
const PREFLIGHT: Duration = Duration::from_secs(600);

/// Nothing that we answer to programs is to be run, shown in a frame, or sent along to others.
const DOCUMENT: HeaderValue =
    HeaderValue::from_static("default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");

/// Pages bring their own scripts, and talk to us alone.
const PAGE: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'",
);

/// How the API is guarded.
#[derive(Debug, Clone)]
pub struct Protection {
    guarding: Guarding,
    tls: Option<Tls>,
}

/// For a process that is its own client: nobody is limited.
impl Default for Protection {
    fn default() -> Self {
        Self { guarding: Guarding { rate_limit: 0, ..Guarding::default() }, tls: None }
    }
}

impl Protection {
    /// As somebody has it.
    ///
    /// # Errors
    /// [`Error`] when the certificate cannot be used.
    pub fn new(guarding: Guarding) -> Result<Self, Error> {
        let files = guarding.tls_cert.clone().zip(guarding.tls_key.clone());
        let tls = files.map(|(certificates, key)| Tls::read(certificates, key)).transpose()?;
        Ok(Self { guarding, tls })
    }

    /// What addresses begin with.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Keep what may change up to date, for ever.
    pub(super) async fn keep(&self) {
        match &self.tls {
            Some(tls) => tls.keep().await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn entrance(&self) -> Entrance {
        let Guarding { max_connections: most, idle_timeout: patience, .. } = self.guarding;
        Entrance { tls: self.tls.clone(), proxies: self.proxies(), most, patience }
    }

    fn proxies(&self) -> Proxies {
        Proxies { trusted: self.guarding.trusted_proxies.clone(), header: self.guarding.forwarded_header }
    }

    /// Put the guard before these answers.
    pub(super) fn wrap(&self, router: Router, keys: Keys, stop: CancellationToken) -> Router {
        let guard = Guard {
            keys,
            reads: if self.guarding.require_key { Reads::WithKey } else { Reads::Public },
            proxies: self.proxies(),
            rate: Rate::new(self.guarding.rate_limit, self.guarding.rate_burst).map(Arc::new),
            is_encrypted: self.tls.is_some(),
            stop,
        };
        // Reads are public, and are asked for without anybody's credentials; what is written is not for other people's pages.
        let cors = CorsLayer::new().allow_origin(Any).allow_methods([Method::GET, Method::HEAD]);
        router
            .layer(CatchPanicLayer::custom(guard::crashed))
            .layer(middleware::from_fn_with_state(guard, guard::pass))
            .layer(middleware::from_fn(name_instance))
            .layer(TraceLayer::new_for_http())
            .layer(cors.expose_headers([ETAG, LOCATION, RETRY_AFTER]).max_age(PREFLIGHT))
    }
}

/// Headers that tell browsers what not to do with an answer, unless it says so itself.
pub(super) fn secure(headers: &mut HeaderMap, is_encrypted: bool) {
    let is_page = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    let mut default = |name: HeaderName, value: HeaderValue| {
        headers.entry(name).or_insert(value);
    };
    default(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    default(CONTENT_SECURITY_POLICY, if is_page { PAGE } else { DOCUMENT });
    default(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    default(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    if is_encrypted {
        default(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_have_a_policy_of_its_own() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'self'"));
        secure(&mut headers, true);
        assert_eq!(headers[CONTENT_SECURITY_POLICY], "default-src 'self'");
        assert!(headers.contains_key(STRICT_TRANSPORT_SECURITY));
        let mut page = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))]);
        secure(&mut page, false);
        assert!(page[CONTENT_SECURITY_POLICY] == PAGE && !page.contains_key(STRICT_TRANSPORT_SECURITY));
    }
}
