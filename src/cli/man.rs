//! `larder man` and `larder completions`: what a package installs beside the binary, made from the command line itself.

use std::{fs, io, path::PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::{Cli, Man};

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[error("cannot write manual pages to {place:?}")]
pub struct Error {
    place: PathBuf,
    source: io::Error,
}

/// The page of `larder` itself, or, with a directory, nothing: all pages are in there then.
pub fn run(args: &Man) -> Result<Vec<u8>, Error> {
    let Some(dir) = &args.dir else { return page() };
    let made = fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    made.map(|()| Vec::new()).map_err(|source| Error { place: dir.clone(), source })
}

fn page() -> Result<Vec<u8>, Error> {
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(Cli::command().disable_help_subcommand(true)).render(&mut page);
    rendered.map(|()| page).map_err(|source| Error { place: "larder.1".into(), source })
}

/// What a shell reads.
pub(super) fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "larder", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use clap::{Command, ValueEnum};

    use super::*;

    /// Every command, each as a page is named: `larder`, `larder-disk`, `larder-disk-gc` ...
    fn commands() -> Vec<(String, Command)> {
        let mut root = Cli::command().disable_help_subcommand(true);
        root.build();
        let (mut open, mut found) = (vec![("larder".to_owned(), root)], Vec::new());
        while let Some((name, command)) = open.pop() {
            open.extend(command.get_subcommands().map(|each| (format!("{name}-{}", each.get_name()), each.clone())));
            found.push((name, command));
        }
        found
    }

    fn flags(command: &Command) -> impl Iterator<Item = &str> {
        command.get_arguments().filter_map(|argument| argument.get_long())
    }

    #[test]
    fn every_command_has_a_page_and_every_flag_a_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("man1");
        assert!(run(&Man { dir: Some(place.clone()) }).expect("pages").is_empty());
        let commands = commands();
        assert!(commands.len() > 15, "{}", commands.len());
        for (name, command) in &commands {
            let page = fs::read_to_string(place.join(format!("{name}.1"))).expect(name);
            for flag in flags(command) {
                assert!(page.contains(&format!("\\-\\-{}", flag.replace('-', "\\-"))), "--{flag} in {name}.1");
            }
            for variable in command.get_arguments().filter_map(|argument| argument.get_env()) {
                assert!(page.contains(&*variable.to_string_lossy()), "{variable:?} in {name}.1");
            }
            for argument in command.get_positionals() {
                let named = argument.get_value_names().unwrap_or_default().iter().all(|value| page.contains(&**value));
                assert!(named, "{argument} in {name}.1");
            }
        }
        assert_eq!(fs::read_dir(&place).expect("pages").count(), commands.len());
        let alone = String::from_utf8(run(&Man { dir: None }).expect("a page")).expect("text");
        assert_eq!(alone, fs::read_to_string(place.join("larder.1")).expect("the page of all"));
    }

    #[test]
    fn every_shell_knows_every_command_and_flag() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(completions(*shell)).expect("text");
            for (name, command) in commands() {
                assert!(script.contains(command.get_name()), "{name} for {shell}");
                // Fish names a flag without its dashes.
                let written =
                    |flag: &str| script.contains(&format!("--{flag}")) || script.contains(&format!("-l {flag}"));
                for flag in flags(&command) {
                    assert!(written(flag), "--{flag} of {name} for {shell}");
                }
            }
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = run(&Man { dir: Some(file.path().join("man1")) }).expect_err("no directory");
        assert!(error.to_string().contains("man1"), "{error}");
    }
}
