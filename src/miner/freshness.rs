//! Tells a call that got a new connection from one that was given a kept-alive connection out of the pool.
//!
//! A kept-alive connection may have been closed by the miner at the moment we used it. That is nobody's fault, and the
//! call is worth a second try; a new connection that closes without an answer is the miner's fault.

use std::{
    cell::Cell,
    future::Future,
    task::{Context, Poll},
};

use tower::{Layer, Service};

tokio::task_local! {
    static CONNECTS: Cell<bool>;
}

/// Which connection a call was sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    /// A new one, perhaps: the pool began to connect for this call.
    New,
    /// One that had answered before.
    Reused,
}

/// What `call` returns, and the connection it used. The client must carry the [`Watch`] layer.
pub(super) async fn observe<F: Future>(call: F) -> (F::Output, Connection) {
    CONNECTS
        .scope(Cell::new(false), async move {
            let output = call.await;
            let connection = if CONNECTS.with(Cell::get) { Connection::New } else { Connection::Reused };
            (output, connection)
        })
        .await
}

/// A layer around the connector that notes on whose behalf it is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watch;

impl<S> Layer<S> for Watch {
    type Service = Watched<S>;

    fn layer(&self, connector: S) -> Watched<S> {
        Watched(connector)
    }
}

/// A connector that notes on whose behalf it is called.
#[derive(Debug, Clone)]
pub(super) struct Watched<S>(S);

impl<S: Service<R>, R> Service<R> for Watched<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, target: R) -> S::Future {
        // The pool may connect in a task of its own, for nobody in particular.
        let _ = CONNECTS.try_with(|connects| connects.set(true));
        self.0.call(target)
    }
}
