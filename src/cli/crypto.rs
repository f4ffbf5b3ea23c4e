//! `robo crypto`: the keys by which deployments are hidden from everybody but the backend.

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf};

use serde_json::json;
use uuid::Uuid;

use super::{
    exit::{Exit, Failure, Result},
    miners,
    render::{self, Format},
};
use crate::{
    chain::seal::{Public, Secret},
    config,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  robo crypto generate-keypair --out backend.key          # prints the public key, for miners
  robo crypto encrypt 95edf2b6-e18b-400a-8398-5573df10e5e4 --public-key 2f9c...
  robo crypto decrypt 'KkIA5Bg?<...' --private-key-file backend.key")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make a private key in a file that only you can read, and print its public key
    GenerateKeypair(Generate),
    /// Encrypt the id of a deployment; what is printed goes into a commitment after `e:`
    Encrypt(Encrypt),
    /// Decrypt a deployment as a backend does
    Decrypt(Decrypt),
}

#[derive(Debug, clap::Args)]
struct Generate {
    /// File for the private key; it must not exist yet
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// How to show the public key
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, clap::Args)]
struct Encrypt {
    /// The deployment's id, a UUID
    deployment: Uuid,

    /// The backend's public key, 64 hexadecimal digits
    #[arg(long, value_name = "HEX")]
    public_key: String,

    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, clap::Args)]
struct Decrypt {
    /// The 80 characters of a commitment after `e:`
    encrypted: String,

    #[command(flatten)]
    key: config::PrivateKey,

    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) async fn run(args: Args) -> Result {
    match args.verb {
        Verb::GenerateKeypair(args) => generate(&args),
        Verb::Encrypt(args) => encrypt(&args),
        Verb::Decrypt(args) => decrypt(&args),
    }
}

fn generate(args: &Generate) -> Result {
    let secret = Secret::generate();
    let path = args.out.display();
    let cannot = |error| Failure::new(Exit::Failed, anyhow::anyhow!("cannot write the private key `{path}`: {error}"));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&args.out)
        .map_err(|error| cannot(error).hint("a key is never overwritten: name another file"))?;
    file.write_all(format!("{}\n", secret.to_hex()).as_bytes()).and_then(|()| file.sync_all()).map_err(cannot)?;
    let public = secret.public().to_hex();
    match args.format {
        Format::Json => render::json(&json!({ "private_key_file": args.out, "public_key": public })),
        Format::Table => {
            render::note(format!(
                "The private key is in {path}. Back it up: without it no encrypted deployment can be read."
            ));
            render::line(public);
        }
    }
    Ok(Exit::Ok)
}

fn encrypt(args: &Encrypt) -> Result {
    let public = Public::from_hex(&args.public_key).ok_or_else(|| {
        Failure::new(Exit::Usage, anyhow::anyhow!("`{}` is no public key: 64 hexadecimal digits", args.public_key))
    })?;
    let sealed = public.seal(args.deployment).map_err(|error| Failure::new(Exit::Usage, error))?;
    match args.format {
        Format::Json => render::json(&json!({ "encrypted": sealed })),
        Format::Table => render::line(sealed),
    }
    Ok(Exit::Ok)
}

fn decrypt(args: &Decrypt) -> Result {
    let Some(secret) = miners::secret(&args.key)? else {
        return Err(Failure::new(Exit::Usage, anyhow::anyhow!("no private key is named"))
            .hint("name its file with --private-key-file (or ROBO_BACKEND_PRIVATE_KEY_FILE)"));
    };
    let id = secret.open(&args.encrypted).map_err(|error| Failure::new(Exit::Failed, error))?;
    match args.format {
        Format::Json => render::json(&json!({ "deployment": id })),
        Format::Table => render::line(id.to_string()),
    }
    Ok(Exit::Ok)
}
