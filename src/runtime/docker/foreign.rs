//! Servers from images that others have made: started as the image says, held like every other, spoken to through a program
//! of a few lines, since nothing of ours is in there.

use bollard::models::ImageInspect;

use super::{engine::Engine, image};
use crate::cycle::InfraFault;
use crate::runtime::{Error, Fault};

/// The port that such servers listen on.
const PORT: u16 = 8000;

/// Joins its standard input and output with the server's port. These images are Python programs, so they have a Python.
const JOIN: &str = "
import os, socket, sys, threading
there = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
def inwards():
    while chunk := os.read(0, 65536):
        there.sendall(chunk)
    there.shutdown(socket.SHUT_WR)
threading.Thread(target=inwards, daemon=True).start()
while chunk := there.recv(65536):
    while chunk:
        chunk = chunk[os.write(1, chunk):]
";

/// What joins a connection of ours with the server in its container.
pub(super) fn join() -> Vec<String> {
    ["python3", "-c", JOIN, &PORT.to_string()].map(str::to_owned).to_vec()
}

/// What the server finds in its environment: one process, so that calls share nothing but what the image means them to.
pub(super) fn env() -> Vec<String> {
    vec![format!("AFFINETES_PORT={PORT}"), "UVICORN_WORKERS=1".to_owned()]
}

/// The image that the manifest names. Nobody of ours can make it.
pub(super) fn named<'a>(family: &str, image: Option<&'a str>) -> Result<&'a str, Box<Fault>> {
    image.ok_or_else(|| {
        let problem = format!("the manifest of `{family}` names no image");
        Box::new(
            Fault::new(InfraFault::ImageMissing, problem).remedy("write `image:` into it, or name a server that runs"),
        )
    })
}

/// What to do about an image that is not there.
pub(super) fn bring(name: &str) -> String {
    format!("bring it there with `docker pull {name}` or `docker load`")
}

/// Refuse to go on where the image is missing whose `nft` puts up the rules around a container of others.
pub(super) async fn check_wall(engine: &Engine, name: &str) -> Result<(), Error> {
    let found: Option<ImageInspect> = image::inspect(engine, name).await?;
    if found.is_some() {
        return Ok(());
    }
    let problem = format!(
        "a container of others is kept to its miners by the program `nft` of the image `{name}`, which {} does not have",
        engine.url()
    );
    let remedy = format!(
        "make it with: robo build-eval-env --tag {name} --docker-host {}; a family with `resources: {{network: full}}` \
         goes without",
        engine.url()
    );
    Err(Box::new(Fault::new(InfraFault::ImageMissing, problem).remedy(remedy)).into())
}
