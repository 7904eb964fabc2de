//! What makes two requests the same, and what keeps them apart: queries, hosts, routes, partitions, variants.

use crate::support::{client, gateway, origin, origin::reply, raw};

#[tokio::test]
async fn responses_to_authorized_requests_are_not_shared() {
    let origin = origin::new()
        .handler("/own", |seen, _| reply(seen.header("authorization").unwrap_or("none").to_owned()).max_age(60))
        .route("/shared", "everyone's")
        .cache_control("public, max-age=60")
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).run().await;
    let get = |path: &str, user: &str| client::get(gateway.url(path)).header("authorization", user).send();

    get("/own", "alice").await.assert_ok("alice");
    get("/own", "bob").await.assert_ok("bob");
    gateway.get("/own").await.assert_ok("none");
    get("/shared", "alice").await.assert_ok("everyone's");
    get("/shared", "bob").await.assert_ok("everyone's").assert_hit();
}

#[tokio::test]
async fn partitions_keep_responses_apart() {
    let origin = origin::new()
        .handler("/own", |seen, _| reply(seen.header("authorization").unwrap_or("none").to_owned()).max_age(60))
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).config("[cache]\npartition = 'authorization'").run().await;
    let get = |user: &str| client::get(gateway.url("/own")).header("authorization", user).send();

    get("alice").await.assert_ok("alice");
    get("bob").await.assert_ok("bob");
    get("alice").await.assert_ok("alice").assert_hit();
    get("bob").await.assert_ok("bob").assert_hit();
    assert_eq!(origin.requests("/own"), 2);
}

#[tokio::test]
async fn the_query_is_part_of_the_key() {
    let origin = origin::new().handler("/a", |seen, _| reply(seen.target.clone()).max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    for target in ["/a", "/a?x=1", "/a?x=2", "/a?x=1&y=2", "/a?y=2&x=1"] {
        gateway.get(target).await.assert_ok(target).assert_forwarded("uri-miss");
        gateway.get(target).await.assert_ok(target).assert_hit();
    }
}

#[tokio::test]
async fn the_query_can_be_sorted_and_thinned() {
    let origin = origin::new().handler("/a", |seen, _| reply(seen.target.clone()).max_age(60)).run().await;
    let config = "[cache]\nquery = 'sorted'\nquery_without = ['utm_*']";
    let gateway = gateway::new().origin(&origin).config(config).run().await;

    gateway.get("/a?y=2&utm_source=mail&x=1").await.assert_ok("/a?y=2&utm_source=mail&x=1");
    gateway.get("/a?x=1&y=2").await.assert_hit();
    gateway.get("/a?x=1&y=3").await.assert_forwarded("uri-miss");
    gateway.get("/a?utm_source=mail").await.assert_forwarded("uri-miss");
    gateway.get("/a").await.assert_ok("/a?utm_source=mail").assert_hit();
}

#[tokio::test]
async fn routes_do_not_share_entries() {
    let shop = origin::new().route("/a", "shop").max_age(60).run().await;
    let blog = origin::new().route("/a", "blog").max_age(60).run().await;
    let config = format!(
        "[[route]]\nname = 'shop'\nhost = 'shop.example'\nupstream = '{}'\n\
         [[route]]\nname = 'blog'\nhost = '*.blog.example'\nupstream = '{}'",
        shop.url(),
        blog.url()
    );
    let gateway = gateway::new().config(config).run().await;
    let get = |host: &str| client::get(gateway.url("/a")).header("host", host).send();

    for _ in 0..2 {
        get("shop.example").await.assert_ok("shop");
        get("my.blog.example").await.assert_ok("blog");
    }
    assert_eq!(get("other.example").await.status, 404);
    assert_eq!((shop.requests("/a"), blog.requests("/a")), (1, 1));
}

#[tokio::test]
async fn a_route_by_path_can_take_its_prefix_off() {
    let origin = origin::new().route("/v1/models", "models").max_age(60).run().await;
    let config = format!("[[route]]\nname = 'api'\npath = '/api'\nstrip_path = true\nupstream = '{}/v1'", origin.url());
    let gateway = gateway::new().config(config).run().await;

    gateway.get("/api/models").await.assert_ok("models");
    gateway.get("/api/models").await.assert_ok("models").assert_hit();
    gateway.get("/%61pi/models?").await.assert_ok("models");
    assert_eq!(gateway.get("/apis/models").await.status, 404, "a prefix ends at a segment");
}

#[tokio::test]
async fn no_path_leads_out_of_a_prefix() {
    let origin = origin::new().run().await;
    let config = format!(
        "[[route]]\nname = 'path'\nhost = 'path'\npath = '/api'\nupstream = '{0}'\n\
         [[route]]\nname = 'strip'\nhost = 'strip'\npath = '/api'\nstrip_path = true\nupstream = '{0}'\n\
         [[route]]\nname = 'base'\nhost = 'base'\nupstream = '{0}/v1'\n\
         [[route]]\nname = 'free'\nhost = 'free'\nupstream = '{0}'",
        origin.url()
    );
    let gateway = gateway::new().config(config).run().await;
    let ask = async |host: &str, target: &str| {
        let mut connection = gateway.raw().await;
        connection.write(format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        let (head, body) = connection.message().await;
        (raw::status(&head), String::from_utf8(body).expect("text"))
    };

    let targets =
        ["/x/../api/y", "/api/./y", "/api/%2e%2e/api/y", "/api/..%2fy", "/api/..;/y", "/api/..%5Cy", "/api/.."];
    for target in targets {
        for host in ["path", "strip", "base"] {
            let (status, problem) = ask(host, target).await;
            // What has left the path of a route before it begins belongs to no route.
            let outside = target == "/api/.." && host != "base";
            assert_eq!(status, if outside { 404 } else { 400 }, "{host} {target}");
            assert!(outside || problem.contains("dot segments"), "{problem}");
        }
        assert_eq!((ask("free", target).await.0, origin.requests(target)), (404, 1), "the origin's to answer");
    }
    let explained = gateway.admin_json("/explain?url=http://strip/api/../api/y").await;
    assert!(explained["verdict"].as_str().is_some_and(|verdict| verdict.starts_with("refused")), "{explained}");
    ask("strip", "/api/a%2Fb/..c").await;
    assert_eq!(origin.requests("/a%2Fb/..c"), 1);
}

#[tokio::test]
async fn where_the_client_chooses_the_host_it_is_part_of_the_key() {
    let origin = origin::new()
        .handler("/a", |seen, _| reply(seen.header("host").expect("a host").to_owned()).max_age(60))
        .run()
        .await;
    let config = format!("[[route]]\nname = 'all'\nhost_header = 'client'\nupstream = '{}'", origin.url());
    let gateway = gateway::new().config(config).run().await;
    let get = |host: &str| client::get(gateway.url("/a")).header("host", host).send();

    for _ in 0..2 {
        get("one.example").await.assert_ok("one.example");
        get("two.example").await.assert_ok("two.example");
    }
    get("ONE.example").await.assert_ok("one.example").assert_hit();
}

#[tokio::test]
async fn variants_live_side_by_side() {
    let origin = origin::new()
        .handler("/a", |seen, _| {
            reply(seen.header("accept").unwrap_or("none").to_owned()).max_age(60).header("vary", "Accept")
        })
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).run().await;
    let get = |accept: &str| client::get(gateway.url("/a")).header("accept", accept).send();

    get("text/html").await.assert_ok("text/html").assert_forwarded("uri-miss");
    get("image/png").await.assert_ok("image/png").assert_forwarded("vary-miss");
    gateway.get("/a").await.assert_ok("none").assert_forwarded("vary-miss");
    get("text/html").await.assert_ok("text/html").assert_hit();
    get("image/png").await.assert_ok("image/png").assert_hit();
    gateway.get("/a").await.assert_ok("none").assert_hit();
    assert_eq!(origin.requests("/a"), 3);
}

#[tokio::test]
async fn the_number_of_variants_is_bounded() {
    let origin = origin::new()
        .handler("/a", |seen, _| {
            reply(seen.header("accept").expect("sent").to_owned()).max_age(60).header("vary", "Accept")
        })
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).config("[cache]\nvariants_max = 3").run().await;

    for number in 0..20 {
        let accept = format!("text/{number}");
        client::get(gateway.url("/a")).header("accept", &accept).send().await.assert_ok(&accept);
    }
    let last = client::get(gateway.url("/a")).header("accept", "text/19").send().await;
    last.assert_ok("text/19").assert_hit();
    let first = client::get(gateway.url("/a")).header("accept", "text/0").send().await;
    first.assert_ok("text/0");
    assert!(!first.cache().hit);
}

#[tokio::test]
async fn what_the_origin_does_not_see_is_no_part_of_the_key() {
    let tenant = |seen: &origin::Seen, _| reply(seen.header("x-tenant").unwrap_or("none").to_owned()).max_age(60);
    let origin = origin::new()
        .handler("/listed", tenant)
        .handler("/varied", move |seen, count| tenant(seen, count).header("vary", "X-Tenant"))
        .run()
        .await;
    let config = format!(
        "[[route]]\nname = 'listed'\npath = '/listed'\nupstream = '{0}'\ncache = {{ key_headers = ['x-tenant'] }}\n\
         [[route]]\nname = 'varied'\nupstream = '{0}'",
        origin.url()
    );
    let gateway = gateway::new().config(config).run().await;

    for path in ["/listed", "/varied"] {
        let get = || client::get(gateway.url(path)).header("x-tenant", "a");
        get().header("connection", "X-Tenant, host").send().await.assert_ok("none");
        get().send().await.assert_ok("a");
        get().send().await.assert_ok("a").assert_hit();
        gateway.get(path).await.assert_ok("none").assert_hit();
        get().header("connection", "x-tenant").send().await.assert_ok("none").assert_hit();
    }
}

#[tokio::test]
async fn what_the_origin_does_not_see_is_no_partition() {
    let origin = origin::new()
        .handler("/own", |seen, _| {
            reply(seen.header("authorization").unwrap_or("nobody's").to_owned()).cache_control("private, max-age=60")
        })
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).config("[cache]\npartition = 'authorization'").run().await;
    let get = || client::get(gateway.url("/own")).header("authorization", "alice");

    get().header("connection", "authorization").send().await.assert_ok("nobody's");
    get().send().await.assert_ok("alice");
}

#[tokio::test]
async fn what_a_trusted_proxy_tells_of_the_url_is_part_of_the_key() {
    let origin = origin::new()
        .handler("/a", |seen, _| {
            let told = ["x-forwarded-proto", "x-forwarded-host", "forwarded"].map(|name| seen.header(name));
            let [scheme, host, forwarded] = told.map(Option::unwrap_or_default);
            reply(format!("{scheme} {host} {}", forwarded.contains("proto=https"))).max_age(60)
        })
        .run()
        .await;
    let route = format!("[[route]]\nname = 'all'\nhost_header = 'client'\nupstream = '{}'\n", origin.url());
    let config = format!("{route}[headers]\ntrusted = ['127.0.0.0/8']");
    let gateway = gateway::new().config(config).run().await;
    let get = |name: &str, value: &str| client::get(gateway.url("/a")).header("host", "x").header(name, value).send();

    for _ in 0..2 {
        get("x-forwarded-proto", "http").await.assert_ok("http x false");
        get("x-forwarded-proto", "https").await.assert_ok("https x false");
        get("x-forwarded-host", "y").await.assert_ok("http y false");
        get("forwarded", "for=192.0.2.1;proto=https").await.assert_ok("http x true");
    }
    get("x-forwarded-proto", "https").await.assert_hit();
    get("forwarded", "for=192.0.2.2;proto=https").await.assert_hit();
    get("x-forwarded-for", "192.0.2.1").await.assert_ok("http x false").assert_forwarded("uri-miss");
    get("accept", "text/html").await.assert_ok("http x false").assert_hit();
    assert_eq!(origin.requests("/a"), 5);

    let strangers = gateway::new().config(route).run().await;
    for (name, value) in [("accept", "x"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "y")] {
        let request = client::get(strangers.url("/a")).header("host", "x").header(name, value);
        request.send().await.assert_ok("http x false");
    }
    assert_eq!(origin.requests("/a"), 6, "what strangers say is neither told nor part of the key");
}

#[tokio::test]
async fn what_differs_from_client_to_client_cannot_be_varied_by() {
    let varying = |field: &str| reply("hello").max_age(60).header("vary", field);
    let origin = origin::new()
        .route("/for", varying("Accept, X-Forwarded-For"))
        .route("/forwarded", varying("forwarded"))
        .route("/id", varying("X-Request-Id"))
        .route("/via", varying("Via"))
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).config("[headers]\ntrusted = ['127.0.0.0/8']").run().await;

    for path in ["/for", "/forwarded", "/id"] {
        for _ in 0..2 {
            let response = gateway.get(path).await;
            response.assert_ok("hello");
            assert!(!response.cache().stored && !response.cache().hit, "{path}");
        }
    }
    gateway.get("/via").await.assert_ok("hello");
    gateway.get("/via").await.assert_ok("hello").assert_hit();
}

#[tokio::test]
async fn all_cookies_of_a_listed_name_count() {
    let origin = origin::new()
        .handler("/a", |seen, _| reply(seen.header("cookie").unwrap_or("none").to_owned()).max_age(60))
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).config("[cache]\nkey_cookies = ['lang']").run().await;
    let get = |cookies: &str| client::get(gateway.url("/a")).header("cookie", cookies).send();

    get("lang=de; lang=en").await.assert_ok("lang=de; lang=en");
    get("lang=de").await.assert_ok("lang=de");
    get("lang=de; lang=fr").await.assert_ok("lang=de; lang=fr");
    get("a=b; lang=de; lang=en").await.assert_ok("lang=de; lang=en").assert_hit();
}
