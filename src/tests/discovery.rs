//! Cycles whose miners are those of a chain: the real program, a real database, real miners, and a node that replays a real
//! runtime with a small subnet of the test's own.

use std::{collections::BTreeMap, fs, os::unix::process::ExitStatusExt, process::Command};

use robo::chain::seal::Secret;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    abuse::whole,
    endpoints,
    examples::Miner,
    support::{
        database::{TestDatabase, Version},
        program::{Place, Ran, pipeline, repository, turn, workspace},
        replay_node::{Fault, ReplayNode},
        subnet::Subnet,
    },
};

/// A chain, a database, and the program between them.
struct Bench {
    node: ReplayNode,
    database: TestDatabase,
    place: Place,
    runtime: Runtime,
}

impl Bench {
    fn new(fault: Fault) -> Self {
        let runtime = Runtime::new().unwrap();
        let (node, database) = runtime.block_on(async {
            let node = ReplayNode::start(fault).await;
            (node, TestDatabase::new(Version::Default).await)
        });
        let place = Place::with_database(database.url());
        Self { node, database, place, runtime }
    }

    /// The program of somebody who validates the subnet of the replayed chain.
    fn robo(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.robo(arguments);
        command.env("ROBO_BACKEND_NETWORK", &self.node.url).env("ROBO_BACKEND_NETUID", "7");
        command.env_remove("ROBO_BACKEND_PRIVATE_KEY_FILE");
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.robo(arguments).output().unwrap().into()
    }

    fn shown(&self) -> Value {
        self.place.json(&["cycle", "show", "--format", "json"])
    }

    /// What a question to the database answers.
    fn asked<T>(&self, sql: &'static str) -> Vec<T>
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        self.runtime.block_on(async {
            let mut connection = self.database.connection().await;
            sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap()
        })
    }
}

/// What a stage has given to others.
fn output<'a>(shown: &'a Value, task: &str) -> &'a Value {
    let tasks = shown["tasks"].as_array().unwrap();
    &tasks.iter().find(|one| one["task"] == task).unwrap_or_else(|| panic!("no task `{task}`: {shown:#}"))["output"]
}

/// Who takes part, with the first block of each.
fn first_blocks(shown: &Value) -> BTreeMap<u64, (String, u64)> {
    let miners = output(shown, "discover")["miners"].as_array().unwrap().iter();
    let entry = |miner: &Value| {
        let hotkey = miner["hotkey"].as_str().unwrap().to_owned();
        (miner["uid"].as_u64().unwrap(), (hotkey, miner["first_block"].as_u64().unwrap()))
    };
    miners.map(entry).collect()
}

/// A pipeline that discovers miners and does little with them.
fn small() -> TempDir {
    let text = "version: 1
name: small
stages:
  discover: { uses: chain/miners, retry: { max_attempts: 2, initial_interval: 10ms, jitter: 0 } }
  known:
    depends_on: [discover]
    uses: expr/map
    with: { items: \"${{ stages.discover.miners }}\", value: \"{'hotkey': item.hotkey, 'block': cycle.block}\" }
    outputs: { known: { type: list } }
";
    workspace(|_| text.to_owned())
}

const ID: &str = "95edf2b6-e18b-400a-8398-5573df10e5e4";

/// A miner whose address is a secret: it answers below a path that nobody finds who does not know it.
async fn hidden_miner() -> String {
    endpoints::miner(|path, _| {
        let answer = if path.ends_with("/act") { r#"{"action": [0.0]}"# } else { "{}" };
        let is_known = path.starts_with(&format!("/{ID}/"));
        if is_known { whole(answer) } else { b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec() }
    })
    .await
}

/// The pendulum's pipeline for miners of the chain, whose deployments are at `template`.
fn pendulum(template: &str) -> TempDir {
    let example = |name: &str| fs::read_to_string(repository().join("examples").join(name)).unwrap();
    let folder = workspace(|_| {
        let text = example("pipelines/pendulum.yaml").replace("classic-control/*", "classic-control/pendulum");
        let (head, rest) = text.split_once("    uses: file/miners").unwrap();
        let (_, rest) = rest.split_once("  provision:").unwrap();
        format!("{head}    uses: chain/miners\n    with: {{ template: \"{template}\" }}\n  provision:{rest}")
    });
    let family = example("environments/classic-control.yaml").replace("action_timeout: 100ms", "action_timeout: 20s");
    fs::write(folder.path().join("environments/classic-control.yaml"), family).unwrap();
    folder
}

/// Nobody reads anywhere where the hidden miner is: neither in what is kept nor in what was said.
fn assert_hidden(bench: &Bench, said: &[&str]) {
    let kept = bench.asked::<String>(
        "select concat((select string_agg(t::text, ' ') from task t), (select string_agg(t::text, ' ') from task_event t),
                (select string_agg(t::text, ' ') from episode t), (select string_agg(t::text, ' ') from standing t),
                (select string_agg(t::text, ' ') from miner_sighting t))",
    );
    assert!(kept[0].contains("sealed:") && kept[0].contains("u/still@1"), "it is there, encrypted");
    let texts = said.iter().copied().chain([kept[0].as_str()]);
    texts.for_each(|text| assert!(!text.contains(ID), "the deployment's id is in {text}"));
    let addresses = bench.asked::<String>(
        "select address || certificate from miner_sighting join standing using (hotkey) where standing.model = 'u/still@1'",
    );
    assert!(!addresses.is_empty() && addresses.iter().all(String::is_empty), "nor its address: {addresses:?}");
}

/// One hotkey of each status; the second and the third take part.
fn crowd(subnet: &Subnet<'_>, swing_up: &str, hidden: &str) {
    for (uid, account) in [(0, 0), (3, 1), (5, 2), (6, 3), (7, 4), (8, 5)] {
        subnet.register(uid, account, 10 + u64::from(uid));
    }
    subnet.commit(1, 50, &format!("u/swing-up:1:{swing_up}"));
    subnet.commit(2, 51, &format!("u/still:1:e:{hidden}"));
    subnet.commit(3, 52, "hello world");
    subnet.commit(4, 53, "u/swing-up:1:http://127.0.0.1:9999");
    subnet.commit(5, 54, "u/far:1:http://169.254.169.254/latest");
    subnet.commit(6, 55, "u/gone:1:gone");
}

#[test]
fn a_cycle_of_a_subnet_pays_hotkeys_at_its_block_and_tells_everybody_else_why() {
    let _turn = turn();
    let bench = Bench::new(Fault::None);
    let swing_up = Miner::start("swing-up");
    let still = bench.runtime.block_on(hidden_miner());
    let secret = Secret::generate();
    let subnet = Subnet::empty(&bench.node);
    crowd(&subnet, &swing_up.url, &secret.public().seal(ID.parse().unwrap()).unwrap());
    let folder = pendulum(&format!("{still}/{{id}}"));
    let key = folder.path().join("backend.key");
    fs::write(&key, secret.to_hex()).unwrap();
    let mut command = bench.robo(&["run-pipeline", &pipeline(&folder), "-i", "episodes_per_env=2"]);
    let ran = Ran::from(command.env("ROBO_BACKEND_PRIVATE_KEY_FILE", &key).output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.stderr);

    // Weights by the uid and hotkey of the block.
    let weights = bench.place.json(&["weights", "show", "--format", "json"]);
    let paid: Vec<(&Value, &Value)> =
        weights["entries"].as_array().unwrap().iter().map(|entry| (&entry["uid"], &entry["hotkey"])).collect();
    let (swinger, hider) = (json!(subnet.hotkey(1)), json!(subnet.hotkey(2)));
    assert_eq!(paid, [(&json!(3), &swinger), (&json!(5), &hider)]);
    assert!(weights["weights"]["3"].as_f64() > weights["weights"]["5"].as_f64(), "{weights:#}");
    let shown = bench.shown();
    assert_eq!(
        (&shown["block"], &shown["pin"]["block"], &shown["pin"]["netuid"]),
        (&json!(100), &json!(100), &json!(7))
    );
    for document in ["weights_document", "scores_document"] {
        assert_eq!(shown[document]["pin"], shown["pin"], "{document}");
    }
    assert_eq!(output(&shown, "discover")["block_hash"], shown["pin"]["hash"]);
    // The subnet is pinned; where the chain was read is not.
    let with = &shown["definition"]["stages"][0]["with"];
    assert_eq!((&with["netuid"], &with["network"]), (&json!(7), &Value::Null));

    // Whoever computes it again is at the same block, and comes to the same bytes.
    let again = bench.run(&["cycle", "rescore", "@latest", "--check"]);
    assert_eq!((again.code, again.stderr.contains("identical")), (0, true), "{}", again.stderr);

    // What everybody is told.
    let listed = bench.place.json(&["cycle", "miners", "--format", "json"]);
    let told: BTreeMap<&str, &str> = listed["miners"]
        .as_array()
        .unwrap()
        .iter()
        .map(|miner| (miner["hotkey"].as_str().unwrap(), miner["status"].as_str().unwrap()))
        .collect();
    let words = ["none", "ok", "ok", "malformed", "duplicate_of", "endpoint_forbidden", "deregistered"];
    let hotkeys: Vec<String> = (0..7).map(|account| subnet.hotkey(account)).collect();
    assert_eq!(told, hotkeys.iter().map(String::as_str).zip(words).collect());
    let table = bench.place.run(&["cycle", "miners"]).stdout;
    assert!(
        table.contains("neither JSON nor") && table.contains("(1 others)") && table.contains("block 100"),
        "{table}"
    );
    let one = bench.place.run(&["cycle", "miners", "--hotkey", &hotkeys[4]]).stdout;
    assert!(one.contains(&hotkeys[1]), "whose the model is: {one}");
    assert_eq!(bench.place.run(&["cycle", "miners", "--hotkey", "5nobody"]).code, 1);

    assert_hidden(&bench, &[&ran.stdout, &ran.stderr, &table, &listed.to_string(), &shown.to_string()]);
}

/// The number of writes that a run says it has made.
fn writes(ran: &Ran) -> u64 {
    let line =
        ran.stderr.lines().find(|line| line.starts_with("journal writes")).unwrap_or_else(|| panic!("{}", ran.stderr));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_cycle_killed_at_any_write_goes_on_with_the_block_it_was_pinned_to() {
    let _turn = turn();
    let bench = Bench::new(Fault::None);
    let subnet = Subnet::empty(&bench.node);
    subnet.register(1, 0, 10);
    subnet.register(2, 1, 10);
    subnet.commit(0, 50, "u/a:1:first");
    let folder = small();
    let file = pipeline(&folder);
    let calm = bench.run(&["run-pipeline", &file, "--die-at", "never"]);
    assert_eq!(calm.code, 0, "{}", calm.stderr);
    let mut block = 100;
    let (mut before, mut after) = (0, 0);
    for point in (1..=writes(&calm)).flat_map(|write| [format!("{write}:before"), format!("{write}:after")]) {
        let old = block;
        let died = bench.robo(&["run-pipeline", &file, "--die-at", &point]).output().unwrap();
        assert_eq!(died.status.signal(), Some(9), "{point}: {}", String::from_utf8_lossy(&died.stderr));
        let pinned = bench.asked::<Option<i64>>("select block from cycle order by cycle_id desc limit 1")[0];
        // The chain moves on: another block, and a newcomer in it.
        block += 10;
        bench.node.finalize(block);
        let newcomer = format!("u/b:{block}:other-{block}");
        subnet.commit(1, u32::try_from(block).unwrap(), &newcomer);
        let readings = bench.node.calls("state_getKeysPaged");
        let resumed = bench.run(&["cycle", "resume"]);
        assert_eq!(resumed.code, 0, "{point}: {}", resumed.stderr);
        let shown = bench.shown();
        let wanted = if pinned.is_some() { old } else { block };
        assert_eq!((&shown["block"], &shown["pin"]["block"]), (&json!(wanted), &json!(wanted)), "{point}");
        let seen = &output(&shown, "known")["known"][0];
        assert_eq!((&seen["hotkey"], &seen["block"]), (&json!(subnet.hotkey(0)), &json!(wanted)), "{point}");
        // What stands in the table is of the same reading: the newcomer as it was, or as it is.
        let newest = bench.asked::<i64>("select max(block) from standing")[0];
        assert_eq!(newest, i64::try_from(wanted).unwrap(), "{point}");
        match pinned {
            Some(_) => {
                assert_eq!(bench.node.calls("state_getKeysPaged"), readings, "{point}: the chain is not asked again");
                after += 1;
            }
            None => before += 1,
        }
    }
    assert!(before > 2 && after > 2, "{before} deaths before the discovery was kept, {after} after");
}

#[test]
fn seniority_outlives_a_cycle_until_something_changes() {
    let _turn = turn();
    let bench = Bench::new(Fault::None);
    let subnet = Subnet::empty(&bench.node);
    let file = small();
    let cycle = || {
        let ran = bench.run(&["run-pipeline", &pipeline(&file)]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        first_blocks(&bench.shown())
    };
    let names: Vec<String> = (0..6).map(|account| subnet.hotkey(account)).collect();
    let of = |entries: &[(u64, usize, u64)]| -> BTreeMap<u64, (String, u64)> {
        entries.iter().map(|(uid, account, block)| (*uid, (names[*account].clone(), *block))).collect()
    };
    for account in 0..5_u16 {
        subnet.register(account + 1, account.into(), 10);
        subnet.commit(account.into(), 50 + u32::from(account), &format!("u/m{account}:1:place-{account}"));
    }
    assert_eq!(cycle(), of(&[(1, 0, 50), (2, 1, 51), (3, 2, 52), (4, 3, 53), (5, 4, 54)]));

    bench.node.finalize(200);
    subnet.commit(0, 150, "u/m0:1:place-0");
    subnet.commit(1, 151, "u/m1:2:place-1");
    subnet.commit(2, 152, "u/m2:1:elsewhere");
    // Somebody else gets the slot of account 3, and serves what it served; account 4 is unreadable for a while.
    subnet.register(4, 5, 140);
    subnet.commit(5, 153, "u/m3:1:place-3");
    subnet.commit(4, 154, "no sense");
    assert_eq!(cycle(), of(&[(1, 0, 50), (2, 1, 151), (3, 2, 152), (4, 5, 153)]));

    bench.node.finalize(300);
    // Account 3 comes back, to what was its own once; and account 4 to what it never left.
    subnet.register(6, 3, 240);
    subnet.commit(3, 250, "u/m3:1:place-9");
    subnet.commit(4, 251, "u/m4:1:place-4");
    subnet.commit(5, 252, "u/m5:1:place-5");
    let third = cycle();
    assert_eq!(third, of(&[(1, 0, 50), (2, 1, 151), (3, 2, 152), (4, 5, 252), (5, 4, 54), (6, 3, 250)]));
    // What the cycles have kept is what is listed.
    let listed = bench.place.json(&["miners", "ls", "--netuid", "7", "--network", &bench.node.url, "--format", "json"]);
    let first = &listed["miners"][0];
    assert_eq!((&first["hotkey"], &first["standing"]["first_block"]), (&json!(names[0]), &json!(50)));
}

#[test]
fn a_chain_that_cannot_be_read_fails_the_cycle_and_nobody_is_judged() {
    let _turn = turn();
    let bench = Bench::new(Fault::Stalled);
    let file = small();
    let nowhere = "ws://127.0.0.1:9/secret-key";
    let both = format!("{nowhere},{}", bench.node.url);
    let mut command = bench.robo(&["run-pipeline", &pipeline(&file)]);
    let ran = Ran::from(command.env("ROBO_BACKEND_NETWORK", &both).output().unwrap());
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    for part in ["no node of the network", "ws://127.0.0.1:9: ", "far behind its best block 1100"] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    let shown = bench.shown();
    let discover = &shown["tasks"][0];
    assert_eq!(
        (&discover["status"], &discover["attempts"], &discover["why"]["class"]),
        (&json!("failed"), &json!(2), &json!("infra"))
    );
    assert_eq!((&shown["block"], &shown["weights_document"]), (&Value::Null, &Value::Null));
    assert!(!format!("{}{shown}", ran.stderr).contains("secret-key"), "{}", ran.stderr);
    let note = bench.place.run(&["cycle", "miners"]);
    assert_eq!((note.code, note.stderr.contains("does not know its miners yet")), (0, true), "{}", note.stderr);
}

#[test]
fn what_cannot_work_is_said_with_its_remedy() {
    let bench = Bench::new(Fault::None);
    let subnet = Subnet::empty(&bench.node);
    let file = small();
    let said = |change: &dyn Fn(&mut Command)| {
        let mut command = bench.robo(&["run-pipeline", &pipeline(&file)]);
        change(&mut command);
        let ran = Ran::from(command.output().unwrap());
        (ran.code, ran.stderr)
    };
    // Before a cycle is made.
    let (code, text) = said(&|command| {
        command.env_remove("ROBO_BACKEND_NETUID");
    });
    assert_eq!((code, text.contains("--netuid") && text.contains("ROBO_BACKEND_NETUID")), (2, true), "{text}");
    let (code, text) = said(&|command| {
        command.env("ROBO_BACKEND_NETWORK", "mainnet");
    });
    assert_eq!((code, text.contains("`mainnet` is neither `finney`")), (2, true), "{text}");
    let (code, text) = said(&|command| {
        command.env("ROBO_BACKEND_PRIVATE_KEY_FILE", "/nowhere/key");
    });
    assert_eq!((code, text.contains("cannot read the private key")), (2, true), "{text}");
    assert_eq!(bench.place.json(&["cycle", "ls", "--format", "json"])["cycles"], json!([]));

    // Nobody is registered; nobody takes part. Another attempt would find the same.
    let (code, text) = said(&|_| {});
    assert_eq!((code, text.contains("No miners found: nobody is registered on subnet 7")), (1, true), "{text}");
    subnet.register(1, 0, 10);
    subnet.commit(0, 50, "demo:heuristic");
    let (code, text) = said(&|_| {});
    assert_eq!((code, text.contains("No miners found") && text.contains("1 malformed")), (1, true), "{text}");
    let why = &bench.shown()["tasks"][0];
    assert_eq!((&why["why"]["class"], &why["attempts"]), (&json!("config"), &json!(1)));
    // Miners of robo's own are never those of a chain, whatever is written there.
    subnet.commit(0, 51, "u/p:1:demo:heuristic");
    let ran = bench.run(&["run-pipeline", &pipeline(&file)]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(output(&bench.shown(), "discover")["miners"][0]["endpoint"], "https://demo.deployments.basilica.ai");
}

/// That of the guide to weights: nobody wins, and the slot that a hotkey has at the block burns it.
#[test]
fn what_nobody_has_earned_is_burnt_by_whatever_slot_a_hotkey_has_at_the_block() {
    let _turn = turn();
    let bench = Bench::new(Fault::None);
    // One that answers, and never with an action.
    let useless = bench.runtime.block_on(endpoints::miner(|_, _| whole("{}")));
    let subnet = Subnet::empty(&bench.node);
    subnet.register(4, 0, 10);
    subnet.register(9, 1, 11);
    subnet.commit(1, 50, &format!("u/useless:1:{useless}"));
    let folder = pendulum("https://{id}.example");
    let guide = fs::read_to_string(repository().join("docs/weights.md")).unwrap();
    let expression = guide.split("`burn_uid: ").nth(1).unwrap().split('`').next().unwrap();
    let file = folder.path().join("pipeline.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let text = text
        .replace("depends_on: [pareto], uses: scores/weights", "depends_on: [discover, pareto], uses: scores/weights")
        .replace("burn_uid: 0", &format!("burn_uid: {expression}"))
        .replace("inputs:\n", "inputs:\n  burn_hotkey: { type: string }\n");
    fs::write(&file, text).unwrap();
    let cycle = |hotkey: &str| {
        let burnt = format!("burn_hotkey={hotkey}");
        bench.run(&["run-pipeline", &pipeline(&folder), "-i", "episodes_per_env=1", "-i", &burnt])
    };
    let burnt = |ran: Ran| {
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        bench.place.json(&["weights", "show", "--format", "json"])
    };
    let (owner, player) = (subnet.hotkey(0), subnet.hotkey(1));
    let weights = burnt(cycle(&owner));
    assert_eq!((&weights["status"], &weights["weights"]), (&json!("burn"), &json!({ "4": 1, "9": 0 })), "{weights:#}");
    assert_eq!(weights["entries"][0]["hotkey"], Value::Null, "a slot, and nobody who is paid: {weights:#}");

    // It moves, and another block has another uid; whoever plays is not burnt to, but paid.
    subnet.register(4, 2, 120);
    subnet.register(6, 0, 120);
    bench.node.finalize(200);
    assert_eq!(burnt(cycle(&owner))["weights"], json!({ "6": 1, "9": 0 }));
    let weights = burnt(cycle(&player));
    assert_eq!((&weights["entries"][0]["hotkey"], &weights["weights"]), (&json!(player), &json!({ "9": 1 })));

    // A hotkey that has no slot is no silent zero.
    let ran = cycle(&subnet.hotkey(3));
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("has no value") && ran.stderr.contains("inputs.burn_hotkey"), "{}", ran.stderr);
}

/// What `robo lint` says of a pipeline with these stages.
fn lint(stages: &str) -> String {
    let folder = workspace(|_| format!("version: 1\nname: p\nstages:\n{stages}"));
    Place::new().run(&["lint", &pipeline(&folder)]).stderr
}

#[test]
fn a_pipeline_reads_one_block_and_whoever_asks_for_it_waits() {
    let two = lint("  a: { uses: chain/miners }\n  b: { uses: chain/miners }\n");
    assert!(two.contains("a cycle is pinned to one block, and `a` reads it already"), "{two}");
    let many = lint("  a: { uses: chain/miners, matrix: { n: [1, 2] } }\n");
    assert!(many.contains("cannot have a matrix"), "{many}");
    let template = lint("  a: { uses: chain/miners, with: { template: \"demo:{id}\" } }\n");
    assert!(template.contains("`template` is `demo:{id}`, and not an address"), "{template}");
    let netuid = lint("  a: { uses: chain/miners, with: { netuid: 70000 } }\n");
    assert!(netuid.contains("from 0 to 65535"), "{netuid}");
    let own = lint("  a: { uses: chain/miners, with: { netuid: \"${{ cycle.block }}\" } }\n");
    assert!(own.contains("the block is not known before the stage has read it"), "{own}");
    let waits = lint(
        "  a: { uses: chain/miners }\n  b: { uses: expr/map, with: { items: [1], value: \"item + cycle.block\" }, outputs: { n: { type: list } } }\n",
    );
    assert!(waits.contains("`b` waits for `a` only because it uses its output"), "{waits}");
}

#[test]
fn the_subnets_pipeline_is_good_and_pinned_to_its_netuid() {
    let file = repository().join("pipelines/subnet.yaml");
    let compiled = |variables: &[(&str, &str)]| {
        let variables: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let variable = |name: &str| variables.get(name).cloned();
        let bindings = robo::plan::Bindings { flags: &[], variable: &variable, missing: robo::plan::Missing::Refuse };
        robo::plan::compile(&file, &bindings).map(|compiled| compiled.definition)
    };
    let seven = compiled(&[("ROBO_BACKEND_NETUID", "7")]).unwrap();
    let with = &seven.stage(&"discover".parse().unwrap()).unwrap().with;
    assert_eq!((&with["netuid"], &with["network"]), (&json!(7), &json!("finney")));
    // Another subnet and another chain are other definitions; another node of a chain is not.
    let hash = |variables: &[(&str, &str)]| {
        compiled(&[&[("ROBO_BACKEND_NETUID", "7")][..], variables].concat()).unwrap().hash()
    };
    assert_ne!(compiled(&[("ROBO_BACKEND_NETUID", "8")]).unwrap().hash(), seven.hash());
    assert_ne!(hash(&[("ROBO_BACKEND_NETWORK", "test")]), seven.hash());
    assert_eq!(hash(&[("ROBO_BACKEND_NETWORK", "finney")]), seven.hash());
    assert_eq!(with["template"], json!("https://{id}.deployments.basilica.ai"));
    let template = [("ROBO_BACKEND_NETUID", "7"), ("ROBO_BACKEND_DEPLOYMENT_TEMPLATE", "http://host/{id}")];
    let elsewhere = compiled(&template).unwrap();
    assert_eq!(elsewhere.stage(&"discover".parse().unwrap()).unwrap().with["template"], json!("http://host/{id}"));
    assert_eq!(
        robo::plan::subnet_variable(&elsewhere, "ROBO_BACKEND_DEPLOYMENT_TEMPLATE").as_deref(),
        Some("http://host/{id}")
    );
    let wrong = [("ROBO_BACKEND_NETUID", "7"), ("ROBO_BACKEND_DEPLOYMENT_TEMPLATE", "host")];
    assert!(compiled(&wrong).unwrap_err().to_string().contains("`template` is `host`, and not an address"));
    let node = |url| hash(&[("ROBO_BACKEND_NETWORK", url)]);
    assert_eq!(node("ws://one:9944"), node("wss://two/key"));
    assert!(compiled(&[]).unwrap_err().to_string().contains("does not know which subnet"));
    assert!(compiled(&[("ROBO_BACKEND_NETUID", "seven")]).unwrap_err().to_string().contains("is `seven`"));
}
