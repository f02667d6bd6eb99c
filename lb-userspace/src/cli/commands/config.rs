//! `flowgate config`.

use std::{fs, io, path::Path};

use crate::{
    api::schema::ConfigText,
    cli::{
        args::{ConfigCommand, Output},
        failure::Failure,
        render,
        terminal::Terminal,
    },
    config::validate,
};

pub(super) async fn run(command: ConfigCommand, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check(args) => {
            let summary = check_file(&args.file).map_err(Failure::Failed)?;
            terminal.text(&(summary + "\n"))
        }
        ConfigCommand::Diff(args) => {
            let text = read(&args.file).map_err(Failure::Failed)?;
            let text = ConfigText { path: args.file.display().to_string(), text };
            let diff = args.client.client().config_diff(&text).await?;
            terminal.answer(args.client.output, &diff, render::config_diff)
        }
        ConfigCommand::Show(args) => {
            let text = args.client.client().config_show().await?;
            match args.client.output {
                Output::Table => terminal.text(&text),
                Output::Json => {
                    let value: serde_json::Value = toml::from_str(&text).map_err(|error| {
                        Failure::Failed(format!("the agent's configuration is not valid TOML: {error}"))
                    })?;
                    terminal.answer(Output::Json, &value, |_, _| String::new())
                }
            }
        }
        ConfigCommand::Reload(args) => {
            let changed = args.client.client().config_reload().await?;
            terminal.answer(args.client.output, &changed, render::changed)
        }
    }
}

/// What the file declares, in a line; or all that is wrong with it.
fn check_file(path: &Path) -> Result<String, String> {
    let text = read(path)?;
    let services = services_of(&text, path)?;
    let backends: usize = services.iter().sum();
    let services = services.len();
    Ok(format!("{}: valid ({}, {})", path.display(), count(services, "service"), count(backends, "backend")))
}

/// The number of backends of each service of a valid file.
fn services_of(text: &str, path: &Path) -> Result<Vec<usize>, String> {
    let config = validate::read(text, path).map_err(|error| error.to_string())?;
    Ok(config.services.iter().map(|(service, _)| service.backends.len()).collect())
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| {
        let way_out = match error.kind() {
            io::ErrorKind::NotFound => "check the path",
            io::ErrorKind::PermissionDenied => "run this as a user who may, or as root",
            io::ErrorKind::IsADirectory => "name the file in it",
            io::ErrorKind::InvalidData => "a configuration is TOML in UTF-8",
            _ => "check the file",
        };
        format!("cannot read {}: {error}: {way_out}", path.display())
    })
}

fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_file_is_summed_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lb.toml");
        let service = "[agent]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\naddress = \"10.1.0.10\"\n\
                       port = 80\nprotocol = \"tcp\"\n";
        let backends =
            "[[service.backend]]\naddress = \"10.2.0.11\"\n[[service.backend]]\naddress = \"10.2.0.12\"\n";
        fs::write(&path, format!("{service}{backends}")).unwrap();
        let wanted = format!("{}: valid (1 service, 2 backends)", path.display());
        assert_eq!(check_file(&path), Ok(wanted));
        fs::write(&path, "[agent\n").unwrap();
        assert!(check_file(&path).is_err());
    }

    #[test]
    fn a_file_that_cannot_be_read_has_a_way_out() {
        let directory = tempfile::tempdir().unwrap();
        let absent = directory.path().join("absent.toml");
        let error = check_file(&absent).unwrap_err();
        assert!(error.ends_with("No such file or directory (os error 2): check the path"), "{error}");
        assert!(check_file(directory.path()).unwrap_err().ends_with("name the file in it"));
        let binary = directory.path().join("binary");
        fs::write(&binary, [0xff, 0xfe]).unwrap();
        assert!(check_file(&binary).unwrap_err().ends_with("TOML in UTF-8"));
    }
}
