//! The command line: what can be asked of the program, and the one place that reads the environment.

use std::fmt::Display;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config, Sources};
use crate::telemetry::{log, trace};
use crate::{app, worker};

mod health;
mod services;

/// Wrong use of the command line, as sysexits(3) numbers it.
const USAGE: u8 = 64;

const EXAMPLES: &str = "\
Examples:
  causeway                                  run with a NATS server of its own
  causeway --nats-url nats://10.0.0.5:4222  run beside an existing one
  causeway --set voice.port=off --port 9000 change settings for this run
  causeway worker voice                     run the reference worker for voice
  causeway config default > causeway.toml   a file with every setting explained
  causeway services                         list who serves on NATS
  causeway check --config causeway.toml     all problems of a configuration at once

Settings come from a file (--config, GW_CONFIG, ./causeway.toml or /etc/causeway/causeway.toml),
above it the environment (GW_VOICE_PORT=8765), above that flags (--set voice.port=8765).
Exit codes: 0 ended as asked, 1 did not start or is not healthy, 64 wrong use.";

/// Real-time clients keep their own protocol; NATS does the rest.
#[derive(Parser)]
#[command(name = "causeway", version, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct Options {
    /// Configuration file (TOML)
    #[arg(long, global = true, value_name = "FILE", env = "GW_CONFIG")]
    config: Option<PathBuf>,
    /// One setting, any number of times; `causeway config doc` lists them
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = pair)]
    settings: Vec<(String, String)>,
    /// The gateway port (gateway.port)
    #[arg(long, global = true)]
    port: Option<String>,
    /// NATS servers, separated by commas (nats.url)
    #[arg(long, global = true, value_name = "URL")]
    nats_url: Option<String>,
    /// Log filter such as debug or causeway=debug,info (log.level)
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway (the default)
    Serve,
    /// Run reference workers
    #[command(
        after_help = "Examples:\n  causeway worker voice\n  causeway worker voice language --nats-url nats://10.0.0.5:4222"
    )]
    Worker {
        /// Which ones, all in one process
        #[arg(required = true, value_name = "NAME", value_parser = PossibleValuesParser::new(worker::NAMES))]
        names: Vec<String>,
    },
    /// Check the configuration and tell every problem
    Check,
    /// Explain the configuration
    Config {
        #[command(subcommand)]
        what: Explain,
    },
    /// Write screenshots on the machine of the scripts that ask for them, or take one now
    #[command(
        after_help = "Examples:\n  causeway screenshots                     write what scripts of the space main ask for, below cad.screenshots\n  causeway screenshots --space blue p.png  take a picture of what the space blue shows"
    )]
    Screenshots {
        /// Take one picture now and write it here
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Whose pages
        #[arg(long, default_value = "main")]
        space: String,
    },
    /// List who serves on NATS, and what each has done
    #[command(
        after_help = "Examples:\n  causeway services          every instance, gateways too\n  causeway services greeter  those of one service, with what they listen on"
    )]
    Services {
        /// Only this one, with its endpoints
        #[arg(value_name = "SERVICE")]
        service: Option<String>,
    },
    /// Ask a running gateway whether it is ready, for container probes
    #[command(after_help = "Example, in a Dockerfile:\n  HEALTHCHECK CMD [\"causeway\", \"health\"]")]
    Health {
        /// Where to ask; by default /readyz on the configured operations port
        #[arg(long)]
        url: Option<String>,
    },
    /// Print the version
    Version,
}

#[derive(Subcommand)]
enum Explain {
    /// A file with every setting at its default
    Default,
    /// A table of every setting, in Markdown
    Doc,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, such as voice.port=8765".to_owned()),
    }
}

/// Runs the program with the arguments and environment of the process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let sources = cli.options.sources();
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => loaded(&sources, |config| serve(config, &sources)),
        Command::Worker { names } => loaded(&sources, |config| {
            // a collector that cannot be used must not keep the worker from running
            let (spans, unusable) = match trace::layer(&config.trace) {
                Ok(spans) => (spans, None),
                Err(error) => (None, Some(error)),
            };
            let logging = match log::start(&config.log, spans) {
                Ok(logging) => logging,
                Err(error) => return failed(&error),
            };
            if let Some(error) = unusable {
                tracing::warn!(%error, "no traces leave this process");
            }
            run(async {
                follow(logging, sources.clone());
                worker::run(&names, &config.nats).await
            })
        }),
        Command::Check => loaded(&sources, |_| {
            let file = sources
                .file
                .as_deref()
                .map_or("no file".into(), Path::to_string_lossy);
            print(&format!("the configuration is valid ({file})\n"))
        }),
        Command::Config {
            what: Explain::Default,
        } => print(&config::default_toml()),
        Command::Config { what: Explain::Doc } => print(&config::markdown()),
        Command::Screenshots { file, space } => {
            loaded(&sources, |config| screenshots(&config, file.as_deref(), &space))
        }
        Command::Services { service } => loaded(&sources, |config| {
            run(async {
                let list = services::list(&config.nats, service.as_deref()).await?;
                let _shown = print(&list);
                Ok::<_, services::NoRoll>(())
            })
        }),
        Command::Health { url } => match health::check(&url.unwrap_or_else(|| probe(&sources))) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        },
        Command::Version => print(concat!("causeway ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

impl Options {
    fn sources(&self) -> Sources {
        let mut flags = self.settings.clone();
        let named = [
            ("gateway.port", &self.port),
            ("nats.url", &self.nats_url),
            ("log.level", &self.log),
        ];
        flags.extend(
            named
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?))),
        );
        let usual = || {
            let places = ["causeway.toml", "/etc/causeway/causeway.toml"];
            places.iter().map(PathBuf::from).find(|path| path.exists())
        };
        // what is not UTF-8 can be no setting of ours
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Sources {
            file: self
                .config
                .clone()
                .filter(|path| !path.as_os_str().is_empty())
                .or_else(usual),
            env: env.collect(),
            flags,
        }
    }
}

fn loaded(sources: &Sources, go: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Config::load(sources) {
        Ok(config) => go(config),
        Err(problems) => failed(&problems),
    }
}

fn serve(config: Config, sources: &Sources) -> ExitCode {
    let logging = match log::start(&config.log, None) {
        Ok(logging) => logging,
        Err(error) => return failed(&error),
    };
    if let Some(file) = &sources.file {
        tracing::info!(file = %file.display(), "configuration");
    }
    // a collector that cannot be used must not keep the gateway from running
    if let Err(error) = trace::start(&config.trace) {
        tracing::warn!(%error, "no traces leave this process");
    }
    run(async {
        follow(logging, sources.clone());
        app::serve(config).await
    })
}

fn screenshots(config: &Config, file: Option<&Path>, space: &str) -> ExitCode {
    // no log: what is told is the result, and whoever wants more asks the gateway's
    run(async {
        match file {
            Some(file) => worker::screenshots::take(config, space, file).await,
            None => {
                let told = |text: &str| {
                    let _shown = print(&format!("{text}\n"));
                };
                worker::screenshots::follow(config, space, told).await
            }
        }
    })
}

/// Runs to the end, then sends the last traces: the exporter blocks, so no runtime may be around any more.
fn run<E: Display>(work: impl Future<Output = Result<(), E>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let ended = runtime.block_on(work);
    runtime.shutdown_timeout(Duration::from_secs(1));
    trace::stop();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// On SIGHUP reads the configuration again, takes over the log filter, and says what else changed: that needs a restart.
fn follow(logging: log::Level, sources: Sources) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        return;
    };
    let running = config::Written::read(&sources);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let config = match Config::load(&sources) {
                Ok(config) => config,
                Err(problems) => {
                    tracing::warn!(%problems, "SIGHUP: nothing changed");
                    continue;
                }
            };
            if let Err(error) = logging.set(&config.log.level) {
                tracing::warn!(%error, "SIGHUP: nothing changed");
                continue;
            }
            let mut stale = running.changed(&config::Written::read(&sources));
            stale.retain(|key| key != "log.level");
            let filter = config.log.level.as_str();
            if stale.is_empty() {
                tracing::info!(
                    filter,
                    "SIGHUP: the log filter is as configured; nothing else changed"
                );
            } else {
                let keys = stale.join(", ");
                tracing::warn!(
                    filter,
                    keys,
                    "SIGHUP: the log filter is as configured; these keys changed and need a restart"
                );
            }
        }
    });
}

/// Where a probe on the same machine finds the operations port.
fn probe(sources: &Sources) -> String {
    let config = Config::load(sources).unwrap_or_else(|_| Config::defaults());
    let address = config
        .ops
        .bind
        .first()
        .copied()
        .filter(|address| !address.is_unspecified());
    let address = address.unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
    format!(
        "http://{}/readyz",
        std::net::SocketAddr::new(address, config.ops.port)
    )
}

fn print(text: &str) -> ExitCode {
    // a reader that has seen enough closes the pipe
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn failed(error: &impl Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "causeway: {error}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn named_flags_are_settings() {
        let cli =
            Cli::try_parse_from(["causeway", "--set", "voice.port=off", "check", "--port", "9000"]).unwrap();
        let flags = cli.options.sources().flags;
        let shown: Vec<String> = flags
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        assert_eq!(shown, ["voice.port=off", "gateway.port=9000"]);
        assert!(Cli::try_parse_from(["causeway", "--set", "voice.port"]).is_err());
    }
}
