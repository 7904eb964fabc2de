//! `larder warm`: starts a job and watches it to its end.

use std::{io::Read, path::Path, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    admin_client::{AdminClient, Error},
    args::{Urls, Warm},
};
use crate::{
    admin::WarmRequest,
    warm::{State, Status, sources},
};

const POLL: Duration = Duration::from_millis(200);

/// Warms, and shows the progress; with `--no-wait` only the name of the job.
pub async fn run(args: Warm) -> Result<(), Error> {
    let client = AdminClient::new(&args.client)?;
    let no_wait = args.no_wait;
    let started: Status = client.post("/warm", &request(args)?).await?;
    if no_wait {
        println!("job {}: {} URLs", started.id, started.total);
        return Ok(());
    }
    let ended = watch(&client, started).await?;
    print!("{}", summary(&ended));
    if ended.failed > 0 && ended.failed == ended.done {
        return Err(Error::Argument("no URL could be fetched".to_owned()));
    }
    Ok(())
}

/// Polls until the job has ended; Ctrl-C cancels it.
async fn watch(client: &AdminClient, mut status: Status) -> Result<Status, Error> {
    let path = format!("/warm/{}", status.id);
    let bar = bar(&status);
    while !status.state.is_final() {
        tokio::select! {
            () = tokio::time::sleep(POLL) => status = client.get(&path).await?,
            _ = tokio::signal::ctrl_c() => status = client.delete(&path).await?,
        }
        bar.set_position(status.done as u64);
        bar.set_message(message(&status));
    }
    bar.finish_and_clear();
    Ok(status)
}

fn bar(status: &Status) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}");
    ProgressBar::new(status.total as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn message(status: &Status) -> String {
    match (status.state, status.failed) {
        (State::Queued, _) => "waiting for other jobs".to_owned(),
        (_, 0) => String::new(),
        (_, failed) => format!("{failed} failed"),
    }
}

fn summary(status: &Status) -> String {
    let Status { total, done, stored, fresh, not_storable, failed, .. } = status;
    let ended = if status.state == State::Cancelled { "cancelled" } else { "done" };
    let seconds = Duration::from_millis(status.elapsed_ms).as_secs_f64();
    let mut text = format!(
        "{ended}: {done} of {total} URLs in {seconds:.1} s: {stored} stored, {fresh} fresh already, {not_storable} not \
         storable, {failed} failed\n"
    );
    for error in &status.errors {
        text.push_str(&format!("  {}: {}\n", error.url, error.error));
    }
    let unnamed = failed.saturating_sub(status.errors.len());
    if unnamed > 0 {
        text.push_str(&format!("  and {unnamed} more\n"));
    }
    text
}

fn request(args: Warm) -> Result<WarmRequest, Error> {
    let Warm { what: Urls { mut urls, file, access_log, base }, concurrency, rate, tenant, .. } = args;
    if let Some(path) = file {
        urls.extend(sources::url_list(&read(&path)?).map(str::to_owned));
    }
    let access_log = access_log.as_deref().map(read).transpose()?;
    Ok(WarmRequest { urls, access_log, base, concurrency, rate, tenant, ..WarmRequest::default() })
}

/// A file, or the standard input where it is called `-`. Log files may hold bytes that are no UTF-8.
fn read(path: &Path) -> Result<String, Error> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes).map(|_| ())
    } else {
        std::fs::read(path).map(|all| bytes = all)
    };
    read.map_err(|source| Error::File { path: path.to_owned(), source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warm::FetchError;

    #[test]
    fn the_summary_names_failures() {
        let status = Status {
            id: "a".to_owned(),
            state: State::Done,
            total: 4,
            done: 4,
            stored: 1,
            fresh: 1,
            not_storable: 0,
            failed: 2,
            errors: vec![FetchError { url: "http://a/".to_owned(), error: "status 502".to_owned() }],
            concurrency: 1,
            rate: 0,
            elapsed_ms: 1500,
        };
        let expected = "done: 4 of 4 URLs in 1.5 s: 1 stored, 1 fresh already, 0 not storable, 2 failed\n  \
                        http://a/: status 502\n  and 1 more\n";
        assert_eq!(summary(&status), expected);
    }
}
