//! `larder log-level`: what a running gateway logs, and a change of it.

use super::{
    admin_client::{AdminClient, Error},
    args::LogLevel,
};
use crate::admin::{self, LogLevelNow};

const PATH: &str = "/log/level";

/// Changes it where a level is given, and shows it.
pub async fn run(args: LogLevel) -> Result<(), Error> {
    let client = AdminClient::new(&args.client)?;
    let now: LogLevelNow = match (args.level, args.lasts) {
        (Some(level), lasts) => {
            let query = lasts.map(|lasts| format!("?for={}s", lasts.as_secs().max(1))).unwrap_or_default();
            client.put(&format!("{PATH}{query}"), &admin::LogLevel { level }).await?
        }
        (None, _) => client.get(PATH).await?,
    };
    println!("{}{}", now.level, now.back_to.map(|level| format!(" (goes back to {level})")).unwrap_or_default());
    Ok(())
}
