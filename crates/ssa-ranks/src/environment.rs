//! The variables by which launchers tell a process its rank.

use crate::world::World;
use crate::{RanksError, Result};

/// A launcher that starts every rank.
struct ProcessLauncher {
    name: &'static str,
    rank: &'static str,
    size: &'static str,
    local_rank: &'static str,
    local_size: Option<&'static str>,
    host: Option<&'static str>,
    port: Port,
    run: &'static str,
}

/// A launcher that starts one process on each host, which starts the other ranks there.
struct HostLauncher {
    host_number: &'static str,
    hosts: &'static str,
    ranks_per_host: &'static str,
    host: &'static str,
    port: Port,
    run: &'static str,
}

/// The port on which rank 0 listens.
#[derive(Clone, Copy)]
enum Port {
    /// A variable has it.
    Variable(&'static str),
    /// The launcher gives none: any that follows from the number of the job.
    OfJob,
}

/// The first one whose `size` is set and above 1 counts. Ranks that this program starts itself get
/// the variables of torchrun.
const PROCESS_LAUNCHERS: [ProcessLauncher; 3] = [
    ProcessLauncher {
        name: "torchrun",
        rank: RANK,
        size: SIZE,
        local_rank: LOCAL_RANK,
        local_size: Some(LOCAL_SIZE),
        host: Some(HOST),
        port: Port::Variable(PORT),
        run: RUN,
    },
    // Not SLURM_NTASKS: it is set for the batch script too, which is no rank.
    ProcessLauncher {
        name: "srun",
        rank: "SLURM_PROCID",
        size: "SLURM_STEP_NUM_TASKS",
        local_rank: "SLURM_LOCALID",
        local_size: None,
        host: Some("SLURM_STEP_NODELIST"),
        port: Port::OfJob,
        run: "SLURM_JOB_ID",
    },
    ProcessLauncher {
        name: "mpirun",
        rank: "OMPI_COMM_WORLD_RANK",
        size: "OMPI_COMM_WORLD_SIZE",
        local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
        local_size: Some("OMPI_COMM_WORLD_LOCAL_SIZE"),
        host: None,
        port: Port::OfJob,
        run: "PMIX_NAMESPACE",
    },
];

const HOST_LAUNCHERS: [HostLauncher; 2] = [
    HostLauncher {
        host_number: "PET_NODE_RANK",
        hosts: "PET_NNODES",
        ranks_per_host: "PET_NPROC_PER_NODE",
        host: "PET_MASTER_ADDR",
        port: Port::Variable("PET_MASTER_PORT"),
        run: "PET_RDZV_ID",
    },
    HostLauncher {
        host_number: "SKYPILOT_NODE_RANK",
        hosts: "SKYPILOT_NUM_NODES",
        ranks_per_host: "SKYPILOT_NUM_GPUS_PER_NODE",
        host: "SKYPILOT_NODE_IPS",
        port: Port::OfJob,
        run: "SKYPILOT_TASK_ID",
    },
];

pub(crate) const RANK: &str = "RANK";
pub(crate) const SIZE: &str = "WORLD_SIZE";
pub(crate) const LOCAL_RANK: &str = "LOCAL_RANK";
pub(crate) const LOCAL_SIZE: &str = "LOCAL_WORLD_SIZE";
pub(crate) const HOST: &str = "MASTER_ADDR";
pub(crate) const PORT: &str = "MASTER_PORT";
pub(crate) const RUN: &str = "TORCHELASTIC_RUN_ID";

/// Set by torchrun if it listens on `MASTER_PORT` itself.
const AGENT_STORE: &str = "TORCHELASTIC_USE_AGENT_STORE";

/// The ports that [`Port::OfJob`] takes, above those that systems hand out.
const JOB_PORTS: std::ops::Range<u16> = 61_440..65_535;

/// Reads variables.
struct Variables<F>(F);

impl World {
    /// The rank of this process: from the variables of a launcher, or rank 0 of the `ranks` that it
    /// starts on this host. `rendezvous` (`HOST:PORT`) replaces the address of a launcher.
    ///
    /// # Errors
    /// [`RanksError::Setting`] names the flag or variable.
    pub fn find(
        ranks: Option<usize>,
        rendezvous: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let variables = Variables(variable);
        let mut world = Self::alone();
        if ranks != Some(1) {
            world = match variables.of_process(rendezvous)? {
                Some(world) => world,
                None => match variables.of_host(ranks)? {
                    Some(world) => world,
                    None => Self::local(ranks.unwrap_or(1)),
                },
            };
        }
        // A launcher that starts one process a host says nothing of the ranks on it.
        let stated = ranks.filter(|_| world.children == 0 && world.size > 1);
        if let Some(ranks) = stated.filter(|&ranks| ranks != world.size) {
            let expected = format!(
                "{}, the number of ranks of the launcher ({})\nhint: leave out --ranks",
                world.size, world.source
            );
            return Err(setting("--ranks", &ranks.to_string(), &expected));
        }
        if let Some(address) = rendezvous {
            let parsed = address.rsplit_once(':').and_then(|(host, port)| {
                port.parse().ok().filter(|_| !host.is_empty()).map(|port| (host.to_owned(), port))
            });
            let refused = || setting("--rendezvous", address, "HOST:PORT");
            (world.host, world.port) = parsed.ok_or_else(refused)?;
        }
        Ok(world)
    }
}

impl<F: Fn(&str) -> Option<String>> Variables<F> {
    fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    fn number(&self, name: &str, below: Option<usize>) -> Result<Option<usize>> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let expected = || below.map_or("a number".to_owned(), |end| format!("below {end}"));
        let number = value.parse().ok().filter(|number| below.is_none_or(|end| *number < end));
        number.map(Some).ok_or_else(|| setting(name, &value, &expected()))
    }

    fn required(&self, name: &str, below: Option<usize>) -> Result<usize> {
        let expected = "set by the launcher, together with the number of ranks";
        self.number(name, below)?.ok_or_else(|| setting(name, "absent", expected))
    }

    /// The rank of a process that a launcher started as one of several.
    fn of_process(&self, rendezvous: Option<&str>) -> Result<Option<World>> {
        for launcher in &PROCESS_LAUNCHERS {
            let Some(size) = self.number(launcher.size, None)?.filter(|&size| size > 1) else {
                continue;
            };
            let rank = self.required(launcher.rank, Some(size))?;
            let local_rank = self.number(launcher.local_rank, None)?.unwrap_or(0);
            let local_size = launcher.local_size.map(|name| self.number(name, None));
            let local_size = local_size.transpose()?.flatten().unwrap_or(1).max(1);
            let host = launcher.host.and_then(|name| self.text(name)).map(|list| first_host(&list));
            if host.is_none() && rendezvous.is_none() {
                let expected = format!(
                    "an address: {} gives none\nhint: pass --rendezvous HOST:PORT with the host of \
                     rank 0",
                    launcher.name
                );
                return Err(setting("--rendezvous", "absent", &expected));
            }
            let source = format!("{}={rank} {}={size}", launcher.rank, launcher.size);
            return Ok(Some(World {
                rank,
                size,
                local_rank,
                local_size,
                host: host.unwrap_or_default(),
                port: self.port(launcher.port, launcher.run)?,
                token: self.text(launcher.run).unwrap_or_default(),
                children: 0,
                source,
            }));
        }
        Ok(None)
    }

    /// Rank 0 of a host, for a process that a launcher started as the only one there.
    fn of_host(&self, ranks: Option<usize>) -> Result<Option<World>> {
        for launcher in &HOST_LAUNCHERS {
            let Some(hosts) = self.number(launcher.hosts, None)?.filter(|&hosts| hosts > 1) else {
                continue;
            };
            let number = self.required(launcher.host_number, Some(hosts))?;
            let here = match ranks {
                Some(ranks) => ranks,
                None => self.number(launcher.ranks_per_host, None)?.unwrap_or(1).max(1),
            };
            let Some(host) = self.text(launcher.host).map(|list| first_host(&list)) else {
                let expected = "the host of rank 0, set by the launcher";
                return Err(setting(launcher.host, "absent", expected));
            };
            let source = format!("{}={number} {}={hosts}", launcher.host_number, launcher.hosts);
            return Ok(Some(World {
                rank: number * here,
                size: hosts * here,
                local_rank: 0,
                local_size: here,
                host,
                port: self.port(launcher.port, launcher.run)?,
                token: self.text(launcher.run).unwrap_or_default(),
                children: here - 1,
                source,
            }));
        }
        Ok(None)
    }

    fn port(&self, port: Port, run: &str) -> Result<u16> {
        match port {
            Port::Variable(name) => {
                let end = usize::from(u16::MAX);
                let port = self.required(name, Some(end))? as u16;
                let taken = self.text(AGENT_STORE).is_some_and(|value| value == "True");
                Ok(if taken && name == PORT { port + 1 } else { port })
            }
            Port::OfJob => {
                let job = self.text(run).unwrap_or_default();
                let sum = job.bytes().fold(0_usize, |sum, byte| {
                    sum.wrapping_mul(31).wrapping_add(usize::from(byte))
                });
                Ok(JOB_PORTS.start + (sum % JOB_PORTS.len()) as u16)
            }
        }
    }
}

fn setting(name: &str, value: &str, expected: &str) -> RanksError {
    let [name, value, expected] = [name, value, expected].map(str::to_owned);
    RanksError::Setting { name, value, expected }
}

/// The first host of a list: of lines, or of Slurm's form `node[003-005,9],other`.
fn first_host(list: &str) -> String {
    let line = list.lines().next().unwrap_or_default().trim();
    let Some((stem, numbers)) = line.split_once('[') else {
        return line.split(',').next().unwrap_or_default().to_owned();
    };
    match stem.split_once(',') {
        Some((first, _)) => first.to_owned(),
        None => {
            let end = numbers.find(['-', ',', ']']).unwrap_or(numbers.len());
            format!("{stem}{}", &numbers[..end])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(ranks: Option<usize>, variables: &[(&str, &str)]) -> Result<World> {
        World::find(ranks, None, |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn without_a_launcher_the_process_starts_the_others() {
        assert_eq!(find(None, &[]).unwrap().size, 1);
        let world = find(Some(4), &[("WORLD_SIZE", "1"), ("RANK", "0")]).unwrap();
        assert_eq!((world.rank, world.size, world.children, world.port), (0, 4, 3, 0));
    }

    #[test]
    fn torchrun_keeps_its_port() {
        let mut variables = vec![
            ("RANK", "3"),
            ("WORLD_SIZE", "8"),
            ("LOCAL_RANK", "1"),
            ("LOCAL_WORLD_SIZE", "2"),
            ("MASTER_ADDR", "a"),
            ("MASTER_PORT", "29500"),
            ("TORCHELASTIC_RUN_ID", "none"),
        ];
        let world = find(None, &variables).unwrap();
        assert_eq!((world.rank, world.size, world.local_rank), (3, 8, 1));
        assert_eq!((world.local_size, world.children), (2, 0));
        assert_eq!((world.address().as_str(), world.token.as_str()), ("a:29500", "none"));
        variables.push(("TORCHELASTIC_USE_AGENT_STORE", "True"));
        assert_eq!(find(Some(8), &variables).unwrap().port, 29_501);
        assert_eq!(find(Some(1), &variables).unwrap().size, 1);
        let message = find(Some(4), &variables).unwrap_err().to_string();
        assert!(message.contains("--ranks is `4`, expected 8"), "{message}");
    }

    #[test]
    fn srun_and_mpirun_are_read() {
        let slurm = [
            ("SLURM_PROCID", "2"),
            ("SLURM_STEP_NUM_TASKS", "4"),
            ("SLURM_LOCALID", "0"),
            ("SLURM_STEP_NODELIST", "node[003-004,9],x1"),
            ("SLURM_JOB_ID", "812345"),
        ];
        let world = find(None, &slurm).unwrap();
        assert_eq!((world.rank, world.size, world.host.as_str()), (2, 4, "node003"));
        assert!(JOB_PORTS.contains(&world.port));
        // A batch script is not a rank.
        assert_eq!(find(None, &[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")]).unwrap().size, 1);
        let mpi = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")];
        let message = find(None, &mpi).unwrap_err().to_string();
        assert!(message.contains("--rendezvous HOST:PORT"), "{message}");
        let variable = |name: &str| {
            mpi.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let world = World::find(None, Some("b:7000"), variable).unwrap();
        assert_eq!((world.rank, world.address().as_str()), (1, "b:7000"));
        for address in ["b", ":1", "b:x", "b:70000"] {
            let message = World::find(None, Some(address), variable).unwrap_err().to_string();
            assert!(message.contains("--rendezvous") && message.contains("HOST:PORT"), "{message}");
        }
    }

    #[test]
    fn one_process_a_host_starts_the_ranks_there() {
        let kubeflow = [
            ("PET_NODE_RANK", "1"),
            ("PET_NNODES", "2"),
            ("PET_NPROC_PER_NODE", "auto"),
            ("PET_MASTER_ADDR", "job-0"),
            ("PET_MASTER_PORT", "29500"),
        ];
        let world = find(Some(4), &kubeflow).unwrap();
        assert_eq!((world.rank, world.size, world.children), (4, 8, 3));
        let message = find(None, &kubeflow).unwrap_err().to_string();
        assert!(message.contains("PET_NPROC_PER_NODE is `auto`"), "{message}");
        let sky = [
            ("SKYPILOT_NODE_RANK", "0"),
            ("SKYPILOT_NUM_NODES", "2"),
            ("SKYPILOT_NODE_IPS", "10.0.0.1\n10.0.0.2"),
        ];
        let world = find(None, &sky).unwrap();
        assert_eq!((world.rank, world.size, world.host.as_str()), (0, 2, "10.0.0.1"));
    }

    #[test]
    fn variables_that_cannot_be_are_named() {
        let base = [("WORLD_SIZE", "2"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "1")];
        for (rank, expected) in [("2", "RANK is `2`, expected below 2"), ("x", "RANK is `x`")] {
            let message = find(None, &[&base[..], &[("RANK", rank)]].concat()).unwrap_err();
            assert!(message.to_string().contains(expected), "{message}");
        }
        let message = find(None, &base).unwrap_err().to_string();
        assert!(message.contains("RANK is `absent`"), "{message}");
    }

    #[test]
    fn the_first_host_of_a_list_is_found() {
        for (list, host) in [
            ("a", "a"),
            ("a,b", "a"),
            ("n[01-02]", "n01"),
            ("n[7,9]", "n7"),
            ("a,n[1-2]", "a"),
            ("10.0.0.1\n10.0.0.2\n", "10.0.0.1"),
        ] {
            assert_eq!(first_host(list), host);
        }
    }
}
