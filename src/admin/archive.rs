//! `/export` and `/import`: what is stored, as a file, out of this gateway and into it.

use std::sync::Arc;

use axum::{
    Extension, Json as Answer,
    body::{Body, BodyDataStream},
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use http::{HeaderValue, StatusCode, Uri, header};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Duration, timeout},
};
use url::form_urlencoded;
use utoipa::IntoParams;

use super::{
    Shared,
    auth::Caller,
    problem::{Problem, nearest},
};
use crate::{
    archive::{Form, Item, MEDIA_TYPE, Reader},
    cache::{
        export::Wanted,
        import::{Import, Imported, Options, Refused},
        route::Route,
    },
    object::entry::Entry,
    proxy::{
        Proxy,
        purge::{PurgeRequest, scopes},
    },
};

/// How long what a refused caller still sends is read away, so that he gets to read the answer.
const READ_AWAY: Duration = Duration::from_secs(5);

/// Of what is stored, all that is named, and of that what also fits the rest.
#[derive(Debug, Default, PartialEq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ExportQuery {
    /// Name of a route; may be there several times, as the next five.
    #[param(required = false)]
    route: Vec<String>,
    /// A URL, as clients name it, with all its variants.
    #[param(required = false)]
    url: Vec<String>,
    /// A URL, with everything below it.
    #[param(required = false)]
    prefix: Vec<String>,
    /// A tag.
    #[param(required = false)]
    tag: Vec<String>,
    /// A host.
    #[param(required = false)]
    host: Vec<String>,
    /// A primary key.
    #[param(required = false)]
    key: Vec<String>,
    /// Only what is fresh.
    #[param(required = false)]
    fresh_only: bool,
    /// Not compressed.
    #[param(required = false)]
    plain: bool,
}

/// How an archive is taken.
#[derive(Debug, Default, PartialEq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ImportQuery {
    /// Name of a route; may be there several times.
    #[param(required = false)]
    route: Vec<String>,
    /// Store nothing: only count.
    #[param(required = false)]
    dry_run: bool,
    /// Also from another gateway, or from this one before its data directory was put back: what was purged there after the
    /// export is the caller's to purge here.
    #[param(required = false)]
    foreign: bool,
    /// Store entries as stale: the origin is asked about each before it is used.
    #[param(required = false)]
    stale: bool,
}

/// What is stored, as an archive.
///
/// What could be used at this moment, in no order, content in clear. The archive is complete if its last record says so: see
/// `docs/EXPORT.md`.
#[utoipa::path(get, path = "/export", tag = "archive", security(("token" = [])), params(ExportQuery), responses(
    (status = 200, description = "The archive", body = String, content_type = "application/vnd.larder.archive"),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "As many are under way as may", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "This node cannot know what others have purged, or has no memory for it", body = Problem,
        content_type = "application/problem+json"),
))]
pub(super) async fn export(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Response, Problem> {
    let query = ExportQuery::parse(uri.query().unwrap_or_default())?;
    let permit = shared.archive_permit()?;
    let proxy = shared.proxy.current();
    known_routes(&proxy, &query.route)?;
    let form = if query.plain { Form::Plain } else { Form::Zstd };
    let wanted = Wanted {
        scopes: query.scopes(&shared, &proxy)?,
        routes: query.route,
        fresh_only: query.fresh_only,
        said: uri.query().unwrap_or_default().to_owned(),
    };
    let cache = proxy.cache().clone();
    let patience = shared.archive.idle_timeout;
    let begun = cache.export(wanted, form, route_of(proxy), patience).await;
    let (export, pieces) = begun.map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    tracing::info!(who = &*caller.name, "export: begun");
    let draining = shared.draining.clone();
    tokio::spawn(async move {
        let _permit: OwnedSemaphorePermit = permit;
        draining.run_until_cancelled(export.run()).await;
    });
    let pieces = stream::unfold(pieces, async |mut pieces| {
        let piece = pieces.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), pieces))
    });
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((fields, Body::from_stream(pieces)).into_response())
}

/// Store what an archive has.
///
/// The answer comes when the archive has ended or broken off: `complete` says which. What was whole before it broke off is
/// stored. The content may be of any length.
#[utoipa::path(post, path = "/import", tag = "archive", security(("token" = [])), params(ImportQuery),
    request_body(content = String, content_type = "application/vnd.larder.archive"), responses(
    (status = 200, body = Imported),
    (status = 400, description = "No archive", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "It is of another secret, another release or another purge log", body = Problem,
        content_type = "application/problem+json"),
    (status = 429, description = "As many are under way as may", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn import(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Answer<Imported>, Problem> {
    let query = ImportQuery::parse(request.uri().query().unwrap_or_default())?;
    let _permit = shared.archive_permit()?;
    let proxy = shared.proxy.current();
    known_routes(&proxy, &query.route)?;
    let ImportQuery { route: routes, dry_run, foreign, stale } = query;
    let mut arriving =
        Arriving { shared: &shared, reader: Reader::default(), body: request.into_body().into_data_stream() };
    let begun = arriving.begin(proxy, Options { dry_run, routes, foreign, stale }).await;
    let mut import = match begun {
        Ok(import) => import,
        Err(problem) => {
            read_away(arriving.body);
            return Err(problem);
        }
    };
    tracing::info!(who = &*caller.name, dry_run, foreign, "import: begun");
    let problem = arriving.rest(&mut import).await.err();
    let imported = import.finish(problem).await;
    let Imported { stored, newer, purged, complete, .. } = imported;
    tracing::info!(stored, newer, purged, complete, "import: ended");
    Ok(Answer(imported))
}

/// An archive that comes in.
struct Arriving<'a> {
    shared: &'a Shared,
    reader: Reader,
    body: BodyDataStream,
}

impl Arriving<'_> {
    /// Reads the header, and decides by it.
    async fn begin(
        &mut self,
        proxy: Proxy,
        options: Options,
    ) -> Result<Import<impl Fn(&Entry) -> Option<Arc<Route>> + use<>>, Problem> {
        let no_archive = |detail: String| Problem::bad_request(format!("{detail}: send what GET /export gave"));
        let Some(Item::Header(header)) = self.next().await.map_err(no_archive)? else {
            return Err(no_archive("this is no archive".to_owned()));
        };
        let cache = proxy.cache().clone();
        let key = cache.check_archive(&header)?;
        self.reader.trust(key).map_err(|error| Problem::new(StatusCode::CONFLICT, error.to_string()))?;
        Ok(cache.import(&header, options, self.shared.archive, route_of(proxy))?)
    }

    /// Takes all that follows the header.
    async fn rest(&mut self, import: &mut Import<impl Fn(&Entry) -> Option<Arc<Route>>>) -> Result<(), String> {
        while let Some(item) = self.next().await? {
            import.take(item).await;
        }
        self.reader.finish().map_err(|error| error.to_string())
    }

    /// What comes next; `None` where nothing more does.
    async fn next(&mut self) -> Result<Option<Item>, String> {
        loop {
            if let Some(item) = self.reader.item().map_err(|error| error.to_string())? {
                return Ok(Some(item));
            }
            let idle = self.shared.archive.idle_timeout;
            let bytes = tokio::select! {
                bytes = timeout(idle, self.body.next()) => bytes,
                () = self.shared.draining.cancelled() => return Err("the gateway is stopping".to_owned()),
            };
            match bytes {
                Ok(Some(Ok(bytes))) => self.reader.push(bytes),
                Ok(Some(Err(_))) => return Err("the call broke off".to_owned()),
                Ok(None) => return Ok(None),
                Err(_) => return Err(format!("nothing came for {idle:?} (archive.idle_timeout)")),
            }
        }
    }
}

/// Reads for a moment what is still sent: who is reset while he sends may never read why.
fn read_away(mut body: BodyDataStream) {
    tokio::spawn(timeout(READ_AWAY, async move { while body.next().await.is_some_and(|bytes| bytes.is_ok()) {} }));
}

impl Shared {
    fn archive_permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.archives).try_acquire_owned().map_err(|_| {
            let detail = "as many exports and imports are under way as may (archive.jobs_max): try again later";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
        })
    }
}

/// So many at once.
pub(super) fn permits(max: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)))
}

fn route_of(proxy: Proxy) -> impl Fn(&Entry) -> Option<Arc<Route>> + Send + Sync + 'static {
    move |entry| proxy.route_of(entry)
}

fn known_routes(proxy: &Proxy, named: &[String]) -> Result<(), Problem> {
    let known: Vec<String> = proxy.route_names();
    let unknown = named.iter().find(|name| !known.contains(name));
    unknown.map_or(Ok(()), |name| {
        let hint = nearest(name, known.iter().map(String::as_str)).map(|near| format!(": did you mean {near:?}?"));
        let detail = format!("there is no route {name:?}{}", hint.unwrap_or_default());
        Err(Problem::bad_request(detail).with_field("route").with_known(known.clone()))
    })
}

impl ExportQuery {
    fn parse(query: &str) -> Result<Self, Problem> {
        let mut parsed = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let list = match &*name {
                "route" => &mut parsed.route,
                "url" => &mut parsed.url,
                "prefix" => &mut parsed.prefix,
                "tag" => &mut parsed.tag,
                "host" => &mut parsed.host,
                "key" => &mut parsed.key,
                "fresh_only" => {
                    parsed.fresh_only = flag(&name, &value)?;
                    continue;
                }
                "plain" => {
                    parsed.plain = flag(&name, &value)?;
                    continue;
                }
                _ => {
                    return Err(unknown(
                        &name,
                        &["route", "url", "prefix", "tag", "host", "key", "fresh_only", "plain"],
                    ));
                }
            };
            list.push(value.into_owned());
        }
        Ok(parsed)
    }

    /// What is named; `None`: everything.
    fn scopes(
        &self,
        shared: &Shared,
        proxy: &Proxy,
    ) -> Result<Option<std::collections::HashSet<crate::object::scope::Scope>>, Problem> {
        let Self { url, prefix, tag, host, key, .. } = self;
        let lists = [url, prefix, tag, host, key].map(Clone::clone);
        if lists.iter().all(Vec::is_empty) {
            return Ok(None);
        }
        let [urls, prefixes, tags, hosts, keys] = lists;
        let named = PurgeRequest { urls, prefixes, tags, hosts, keys, ..PurgeRequest::default() };
        Ok(Some(scopes(proxy, &shared.purge_config, &named)?.into_iter().collect()))
    }
}

impl ImportQuery {
    fn parse(query: &str) -> Result<Self, Problem> {
        let mut parsed = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "route" => parsed.route.push(value.into_owned()),
                "dry_run" => parsed.dry_run = flag(&name, &value)?,
                "foreign" => parsed.foreign = flag(&name, &value)?,
                "stale" => parsed.stale = flag(&name, &value)?,
                _ => return Err(unknown(&name, &["route", "dry_run", "foreign", "stale"])),
            }
        }
        Ok(parsed)
    }
}

fn flag(name: &str, value: &str) -> Result<bool, Problem> {
    value.parse().map_err(|_| Problem::bad_request(format!("`{name}`: write true or false")).with_field(name))
}

fn unknown(name: &str, known: &[&'static str]) -> Problem {
    let hint = nearest(name, known.iter().copied()).map(|near| format!(": did you mean `{near}`?"));
    Problem::bad_request(format!("there is no `{name}`{}", hint.unwrap_or_default()))
        .with_field(name)
        .with_known(known.iter().map(|&name| name.to_owned()).collect())
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        Self::new(StatusCode::CONFLICT, refused.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_several_times_is_a_list() {
        let query = ExportQuery::parse("tag=a&tag=b%20c&fresh_only=true&route=shop").expect("a query");
        assert_eq!((query.tag, query.route), (vec!["a".to_owned(), "b c".to_owned()], vec!["shop".to_owned()]));
        assert!(query.fresh_only && !query.plain);
        let query = ImportQuery::parse("dry_run=true&stale=false&foreign=true").expect("a query");
        assert_eq!((query.dry_run, query.stale, query.foreign), (true, false, true));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let problem = ExportQuery::parse("tags=a").expect_err("a refusal");
        assert!(problem.detail.contains("did you mean `tag`?"), "{}", problem.detail);
        assert_eq!(ExportQuery::parse("fresh_only=1").expect_err("a refusal").field.as_deref(), Some("fresh_only"));
        assert_eq!(ImportQuery::parse("dryrun=true").expect_err("a refusal").status, 400);
    }
}
