mod embedded;
mod store;
mod support;
