//! How long work tells what it is doing, without knowing who listens.

use std::{fmt, sync::Arc};

/// A listener for one-line messages such as `downloading numpy 2.4.6 (12 of 31)`. Cheap to clone.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(&str) + Send + Sync>);

impl Progress {
    /// Call `listener` with every message.
    pub fn new(listener: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// Tell nobody.
    pub fn silent() -> Self {
        Self::new(|_| ())
    }

    /// Say something.
    pub fn say(&self, message: impl AsRef<str>) {
        (self.0)(message.as_ref());
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}
