//! HTTP reads for validators.
