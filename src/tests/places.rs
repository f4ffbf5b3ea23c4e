//! What every place keeps, whatever it is made of: the promises of the trait `Runtime`, asked of each of them.
//!
//! The tests of each place call [`keeps_its_word`] with a server of that place.

use std::time::Duration;

use robo::runtime::{Order, Running, Runtime};

/// The family that such servers are of; what a place has of it can be counted.
pub(crate) const FAMILY: &str = "conformance";

/// Start servers, ask them, and end them in each of the ways there are. `left` counts what a place still has of them.
pub(crate) async fn keeps_its_word(runtime: &dyn Runtime, order: &Order, left: impl Fn() -> usize) {
    crate::install_tls();
    let order = &Order { family: FAMILY.into(), ..order.clone() };
    assert!(runtime.room(order).await >= 1);
    let (one, other) = tokio::join!(runtime.start(order), runtime.start(order));
    let (mut one, other) = (one.unwrap(), other.unwrap());
    let (first, second) = (one.address().clone(), other.address().clone());
    assert!(first.url != second.url && first.token != second.token, "{first:?} {second:?}");
    assert!(
        first.url.starts_with("http://") && !first.url.ends_with('/') && !first.description.is_empty(),
        "{first:?}"
    );
    one.check().await.unwrap();
    assert_eq!(answer(&first.url, Some(&first.token)).await, Some(true));
    assert_eq!(answer(&first.url, Some(&second.token)).await, Some(false), "another server's token");
    assert_eq!(answer(&first.url, None).await, Some(false), "no token");
    let miners = ["https://miner.example/x", "http://203.0.113.7:9000"].map(str::to_owned);
    assert_eq!(one.reach(&miners).await.unwrap(), miners, "one for each, in order, and no public one changed");

    one.stop().await;
    assert_eq!(answer(&first.url, Some(&first.token)).await, None, "it was stopped");
    drop(other);
    while answer(&second.url, Some(&second.token)).await.is_some() {
        tokio::task::yield_now().await;
    }
    // Given up in the middle: whatever was started by then is ended.
    let given_up = tokio::time::timeout(Duration::from_millis(300), runtime.start(order)).await;
    drop(given_up.map(|started| started.map(|server: Box<dyn Running>| server.address().clone())));
    while left() > 0 {
        tokio::task::yield_now().await;
    }
}

/// Whether a server lets somebody with this token in; nothing when it does not answer.
async fn answer(url: &str, token: Option<&str>) -> Option<bool> {
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let mut request = client.get(format!("{url}/health")).timeout(Duration::from_secs(10));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    Some(request.send().await.ok()?.status().is_success())
}
