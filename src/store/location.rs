//! Which database: a server somebody runs, or the embedded one.

use std::{fmt, str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::{config, host::Progress};

use super::{Error, embedded::Server, url};

/// Name of the user and the database of the embedded server.
const EMBEDDED_NAME: &str = "robo";

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A database and the way to it.
#[derive(Debug)]
pub(super) enum Location {
    /// A server named by its URL.
    Server { options: PgConnectOptions },
    /// Our own.
    Embedded { options: PgConnectOptions, server: Server },
}

impl Location {
    /// The configured database. Starts the embedded server if no other is named.
    pub(super) async fn find(config: &config::Database, progress: &Progress) -> Result<Self, Error> {
        if let Some(url) = &config.database_url {
            return Ok(Self::Server { options: parse(url)? });
        }
        let server = Server::start(config, progress).await?;
        let options = embedded_options(&server);
        if options.get_options().is_some() {
            return Err(Error::ForeignOptions);
        }
        Ok(Self::Embedded { options, server })
    }

    pub(super) fn is_embedded(&self) -> bool {
        matches!(self, Self::Embedded { .. })
    }

    pub(super) fn options(&self) -> &PgConnectOptions {
        match self {
            Self::Server { options } | Self::Embedded { options, .. } => options,
        }
    }

    /// Stop using the embedded server, if it is the one.
    pub(super) async fn leave(&self) {
        if let Self::Embedded { server, .. } = self {
            server.leave().await;
        }
    }

    /// The database's name.
    pub(super) fn database(&self) -> &str {
        let options = self.options();
        options.get_database().unwrap_or(options.get_username())
    }

    /// A connection outside the pool.
    pub(super) async fn connect(&self) -> Result<PgConnection, Error> {
        self.connect_with(self.options()).await
    }

    /// A connection to the database that is there before ours is.
    pub(super) async fn connect_for_maintenance(&self) -> Result<PgConnection, Error> {
        let other = if self.database() == "postgres" { "template1" } else { "postgres" };
        self.connect_with(&self.options().clone().database(other)).await
    }

    async fn connect_with(&self, options: &PgConnectOptions) -> Result<PgConnection, Error> {
        let unreachable = |source| Error::Unreachable { location: self.to_string(), source };
        match tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) if is_missing_database(&error) => Err(Error::NoDatabase(self.database().to_owned())),
            Ok(Err(error)) => Err(unreachable(error.into())),
            Err(_) => Err(unreachable(format!("no answer within {} seconds", CONNECT_TIMEOUT.as_secs()).into())),
        }
    }
}

/// The way to our own server. Whatever the library has taken from variables is replaced or of no use there: without TLS no
/// certificate is read, and nobody asks for a password. Only `PGOPTIONS` cannot be replaced.
fn embedded_options(server: &Server) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(server.sockets())
        .port(Server::PORT)
        .username(EMBEDDED_NAME)
        .database(EMBEDDED_NAME)
        .ssl_mode(PgSslMode::Disable)
        .application_name("robo")
}

/// What a URL says. The error never repeats the URL, which may hold a password.
fn parse(url: &str) -> Result<PgConnectOptions, Error> {
    let url = url::plain(url).map_err(|reason| Error::Url(reason.into()))?;
    let options = PgConnectOptions::from_str(&url).map_err(|error| match error {
        sqlx::Error::Configuration(cause) => Error::Url(cause.to_string()),
        _ => Error::Url("it cannot be read".into()),
    })?;
    // The library would look for a host whose name has brackets.
    let bare = options.get_host().strip_prefix('[').and_then(|host| host.strip_suffix(']')).map(str::to_owned);
    let options = match bare {
        Some(host) => options.host(&host),
        None => options,
    };
    Ok(if options.get_application_name().is_some() { options } else { options.application_name("robo") })
}

/// `invalid_catalog_name`: the server answers, the database is not there.
fn is_missing_database(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some("3D000"))
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded { server, .. } => write!(f, "embedded server in {}", server.directory().display()),
            Self::Server { options } => {
                write!(f, "postgresql://{}@", options.get_username())?;
                match options.get_socket() {
                    Some(socket) => write!(f, "{}", socket.display())?,
                    None if options.get_host().contains(':') => {
                        write!(f, "[{}]:{}", options.get_host(), options.get_port())?;
                    }
                    None => write!(f, "{}:{}", options.get_host(), options.get_port())?,
                }
                write!(f, "/{}", self.database())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let location = Location::Server { options: parse("postgresql://me:s3cret@db.example:6432/robo").unwrap() };
        assert_eq!(location.to_string(), "postgresql://me@db.example:6432/robo");
        for bad in ["postgresql://me:s3cret@db:99999999/x", "mysql://me:s3cret@db/x", "me:s3cret@db", "postgresql://"] {
            if let Err(error) = parse(bad) {
                assert!(!error.to_string().contains("s3cret"), "{error}");
            }
        }
        let location = Location::Server { options: parse("postgresql+asyncpg://me:s3cret@[::1]:6432/robo").unwrap() };
        assert_eq!(location.to_string(), "postgresql://me@[::1]:6432/robo");
        assert_eq!(location.options().get_host(), "::1");
        assert!(parse("mysql://db/x").is_err() && parse("postgresql://db:99999999/x").is_err());
    }
}
