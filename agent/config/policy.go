package config

// Policy is what runs when, how often it is tried, and what is kept.
type Policy struct {
	Items []string `yaml:"items"` // names from items; at least one
	// Schedule is a cron expression ("0 2 * * *") or words ("daily at 02:00"). Default:
	// only when asked, coffer policy run NAME.
	Schedule string `yaml:"schedule"`
	// Timezone is whose local time is meant: "Europe/Berlin". Default: this machine's.
	Timezone string `yaml:"timezone"`
	// Jitter puts runs later by up to so much, each host by its own share.
	Jitter Duration `yaml:"jitter"`
	// Not are windows in which nothing begins: "08:00-18:00 mon-fri". What runs when
	// one begins goes on.
	Not []string `yaml:"not"`
	// Priority decides who goes first where jobs wait: -100 to 100, default 0, the
	// higher the sooner. Who has waited for a day goes before all who have not.
	Priority int   `yaml:"priority"`
	Retry    Retry `yaml:"retry"`
	// Deadline is how long a run may take with all its tries; default: no limit.
	Deadline Duration `yaml:"deadline"`
	Hooks    Hooks    `yaml:"hooks"`
	// ReadLimit holds back what backups of the policy read from their sources, in bytes
	// a second: "100 MiB". Default: none.
	ReadLimit Size `yaml:"read_limit"`
	// Retention says what is kept. Default: everything.
	Retention *Retention `yaml:"retention"`
}

// Retry says how often a run that fails is tried again.
type Retry struct {
	Tries   int      `yaml:"tries"`   // with the first; default 5, and 1 is no retry
	First   Duration `yaml:"first"`   // wait after the first failure, then twice as long each time; default 1m
	Longest Duration `yaml:"longest"` // wait; default 1h
}

// Hooks are commands that run around a backup, once for each item. They get
// COFFER_ITEM, COFFER_POLICY, COFFER_JOB and, after it, COFFER_RESULT (done or failed)
// and COFFER_POINT in their environment, of the agent's own only PATH, HOME, LANG and the
// like, and what they print is kept with the job. They run around each backup of the
// policy's items, also around one that somebody asks for.
type Hooks struct {
	Pre  *Hook `yaml:"pre"`  // if it fails there is no backup
	Post *Hook `yaml:"post"` // also after a backup that failed
}

// Hook is one command.
type Hook struct {
	// Command is a program, by its absolute path, and its arguments; no shell.
	Command []string `yaml:"command"`
	// Timeout is how long it may run, default 10m. Then it is killed, and what it
	// started with it.
	Timeout Duration `yaml:"timeout"`
}

// Retention says which points of an item are kept: each that one rule keeps.
type Retention struct {
	Last    int `yaml:"last"` // the newest ones
	Hourly  int `yaml:"hourly"`
	Daily   int `yaml:"daily"`
	Weekly  int `yaml:"weekly"`
	Monthly int `yaml:"monthly"`
	Yearly  int `yaml:"yearly"`
	// Within keeps what is not older than this, counted back from the newest point.
	Within Duration `yaml:"within"`
	Tags   []string `yaml:"tags"` // points that have one of them
	// Minimum is how many of the newest good points are kept whatever the rules say;
	// default 1.
	Minimum int `yaml:"minimum"`
}
