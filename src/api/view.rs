//! How much of a thing is shown, by who asks and what the operator has decided.

use super::{Endpoints, caller::Caller};

/// For whose eyes an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum View {
    /// What is no secret: words and classes, no texts that may hold addresses.
    Public,
    /// Everything an operator needs.
    Operator,
}

impl From<&Caller> for View {
    fn from(caller: &Caller) -> Self {
        match caller {
            Caller::Anybody => Self::Public,
            Caller::Operator(_) => Self::Operator,
        }
    }
}

impl View {
    /// What only an operator is told.
    pub(super) fn operators<T>(self, value: T) -> Option<T> {
        match self {
            Self::Public => None,
            Self::Operator => Some(value),
        }
    }

    /// A miner's endpoint, where it is shown. One that is kept encrypted is shown to nobody: it is no address either.
    pub(super) fn endpoint(self, endpoints: Endpoints, endpoint: &str) -> Option<&str> {
        let is_shown = self == Self::Operator || endpoints == Endpoints::Shown;
        Some(endpoint).filter(|endpoint| is_shown && !endpoint.starts_with("sealed:"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_for_operators_unless_they_say_otherwise_and_sealed_ones_for_nobody() {
        let url = "http://8.8.8.8:9000";
        for (view, endpoints, shown) in [
            (View::Public, Endpoints::Hidden, None),
            (View::Public, Endpoints::Shown, Some(url)),
            (View::Operator, Endpoints::Hidden, Some(url)),
        ] {
            assert_eq!(view.endpoint(endpoints, url), shown, "{view:?} {endpoints:?}");
            assert_eq!(view.endpoint(endpoints, "sealed:abc"), None);
        }
        assert_eq!((View::Operator.operators(1), View::from(&Caller::Anybody).operators(1)), (Some(1), None));
    }
}
