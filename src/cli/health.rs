//! `larder health`: what a probe asks, for where there is no curl, as in a container.

use super::{
    admin_client::{AdminClient, Error},
    args::Health,
};

/// Says what the gateway says of itself; an error where it is not ready, or not there.
pub async fn run(args: Health) -> Result<(), Error> {
    let path = if args.live { "/healthz" } else { "/readyz" };
    // Probes are open to everybody: a token would only be one more thing to hand out.
    let client = AdminClient::to(&args.admin, None, &args.tls)?;
    print!("{}", client.probe(path, args.timeout).await?);
    Ok(())
}
