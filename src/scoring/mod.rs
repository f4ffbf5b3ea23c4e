//! Pure functions from success rates to weights: same input, same bytes out.
