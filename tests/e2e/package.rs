//! The Debian package: whole, the same bytes from the same tree, and what is in
//! it fits together.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::ringwall::{Site, binary};
use crate::support::tools;

fn build(site: &Site, folder: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = site.file(folder);
    let said = tools::run(
        root,
        "scripts/package",
        &[
            "--binary",
            binary().to_str().expect("UTF-8"),
            "--out",
            out.to_str().expect("UTF-8"),
            "--quick",
        ],
    )
    .expect_ok();
    PathBuf::from(said.trim())
}

/// What the binary itself says that it is made of, as `cargo audit bin` reads it.
fn crates_in(program: &Path, site: &Site) -> Vec<String> {
    let list = site.file("dep-v0");
    let dump = format!(".dep-v0={}", list.display());
    let program = program.to_str().expect("UTF-8");
    tools::run(
        site.path(),
        "objcopy",
        &["--dump-section", &dump, program, "/dev/null"],
    )
    .expect_ok();
    let unpack =
        "import sys, zlib; print(zlib.decompress(open(sys.argv[1], 'rb').read()).decode())";
    let list = list.to_str().expect("UTF-8");
    let text = tools::run(site.path(), "python3", &["-c", unpack, list]).expect_ok();
    let list: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let packages = list["packages"].as_array().expect("a list");
    let names = packages
        .iter()
        .filter_map(|package| package["name"].as_str());
    names.map(str::to_owned).collect()
}

#[test]
fn the_package_is_whole_and_the_same_bytes_every_time() {
    let site = Site::new();
    let package = build(&site, "one");
    let again = build(&site, "two");
    assert!(
        fs::read(&package).expect("a package") == fs::read(again).expect("a package"),
        "the same tree gives the same package"
    );
    let package = package.to_str().expect("UTF-8");
    let installed = site.file("root");
    let target = installed.to_str().expect("UTF-8");
    tools::run(site.path(), "dpkg-deb", &["-R", package, target]).expect_ok();

    // What the unit starts is there and runs.
    let unit =
        fs::read_to_string(installed.join("lib/systemd/system/ringwall.service")).expect("a unit");
    assert!(unit.contains("\nType=notify\n") && unit.contains("\nExecReload=/bin/kill -HUP"));
    let started = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .and_then(|line| line.split(' ').next())
        .expect("a program");
    let program = installed.join(started.trim_start_matches('/'));
    let said = tools::run(site.path(), program.to_str().expect("UTF-8"), &["-v"]);
    assert!(said.stderr.contains("ringwall version"), "{said:?}");

    let conffiles = fs::read_to_string(installed.join("DEBIAN/conffiles")).expect("conffiles");
    assert_eq!(
        conffiles,
        "/etc/logrotate.d/ringwall\n/etc/ringwall/ringwall.conf\n"
    );
    tools::run(
        &installed,
        "md5sum",
        &["--check", "--quiet", "DEBIAN/md5sums"],
    )
    .expect_ok();
    for script in ["postinst", "prerm", "postrm"] {
        tools::run(&installed.join("DEBIAN"), "sh", &["-n", script]).expect_ok();
    }
    let page = |path: &str| tools::run(&installed, "gzip", &["-dc", path]).expect_ok();
    let command = page("usr/share/man/man8/ringwall.8.gz");
    assert!(command.contains("\\-t") && command.contains("Test configuration"));
    let file = page("usr/share/man/man5/ringwall.conf.5.gz");
    assert!(
        file.contains(".B proxy_pass\nhonoured; in location"),
        "{file}"
    );
    let rows = tools::run(
        site.path(),
        program.to_str().expect("UTF-8"),
        &["--directives"],
    );
    let rows = rows.expect_ok();
    // | `proxy_pass` | location | honoured | … |
    let names: Vec<&str> = rows
        .lines()
        .filter_map(|row| row.strip_prefix("| `")?.split('`').next())
        .collect();
    assert!(names.len() > 500, "{}", names.len());
    for name in names {
        assert!(
            file.contains(&format!(".B {name}\n")),
            "{name} is not in ringwall.conf(5)"
        );
    }
    let completed = "source usr/share/bash-completion/completions/ringwall; \
        COMP_WORDS=(ringwall -s re) COMP_CWORD=2; _ringwall; echo ${COMPREPLY[*]}";
    let completed = tools::run(&installed, "bash", &["-c", completed]).expect_ok();
    assert_eq!(completed, "reopen reload\n");
    let rotation = fs::read_to_string(installed.join("etc/logrotate.d/ringwall")).expect("rules");
    assert!(rotation.contains("kill -USR1") && unit.contains("LogsDirectory=ringwall"));
    let listed = crates_in(&program, &site);
    for name in ["ringwall", "rustls", "monoio", "aws-lc-sys"] {
        assert!(
            listed.iter().any(|known| known == name),
            "{name}: {listed:?}"
        );
    }
    assert!(!listed.iter().any(|known| known == "criterion"));
    let bill = fs::read(installed.join("usr/share/doc/ringwall/sbom.cdx.json")).expect("a bill");
    let bill: serde_json::Value = serde_json::from_slice(&bill).expect("JSON");
    let components = bill["components"].as_array().expect("a list");
    let has = |name: &str| {
        let found = components.iter().find(|c| c["name"] == name);
        found.inspect(|c| {
            assert_eq!(c["hashes"][0]["alg"], "SHA-256", "{c}");
            assert!(c["licenses"][0]["expression"].is_string(), "{c}");
        });
        found.is_some()
    };
    assert!(has("rustls") && has("monoio") && has("aws-lc-sys"));
    assert!(
        !has("criterion") && !has("clap_derive"),
        "not in the binary"
    );
    let control = fs::read_to_string(installed.join("DEBIAN/control")).expect("control");
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        control.contains(&format!("\nVersion: {version}\n")),
        "{control}"
    );
}
