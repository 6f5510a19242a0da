package config

// Notify is one way of telling. It has exactly one of Webhook, SMTP, Command and Ping.
type Notify struct {
	// On are what is told: failure (a job failed for good), alarm (keys, stores,
	// rollback, a point that is overdue), recovery (that again is well), success (a
	// job is done). Default: failure, alarm and recovery. Not for a ping, which is sent
	// for every backup of Items.
	On []string `yaml:"on"`
	// Items are those that it is about; default: all, and what is about none.
	Items []string `yaml:"items"`
	// Repeat is after how long a fault that lasts is told again; default 24h.
	Repeat Duration `yaml:"repeat"`
	// Subject and Body are Go templates over what is told: .Kind .Subject .Message
	// .Next .Host .Time .Item .Job .Count. They have defaults. Not for a ping.
	Subject string `yaml:"subject"`
	Body    string `yaml:"body"`

	Webhook *Webhook `yaml:"webhook"`
	SMTP    *SMTP    `yaml:"smtp"`
	Command []string `yaml:"command"` // gets Body on its standard input; no shell
	Ping    *Ping    `yaml:"ping"`
}

// Webhook posts Body, by default the whole notice as JSON.
type Webhook struct {
	// URL, or where it is if it is a secret: url_source as file:/path or env:NAME.
	URL       string            `yaml:"url"`
	URLSource string            `yaml:"url_source"`
	Headers   map[string]string `yaml:"headers"`
	// TokenSource is where a bearer token is: file:/path or env:NAME.
	TokenSource string `yaml:"token_source"`
	CA          string `yaml:"ca"` // PEM file of authorities to trust beside the system's
}

// SMTP sends a mail, with STARTTLS or TLS unless the server is on this machine.
type SMTP struct {
	Server         string   `yaml:"server"` // host:port; port 465 is TLS from the start
	From           string   `yaml:"from"`
	To             []string `yaml:"to"`
	User           string   `yaml:"user"`
	PasswordSource string   `yaml:"password_source"` // file:/path or env:NAME
	CA             string   `yaml:"ca"`
}

// Ping tells a service that watches for missing backups, in the manner of
// healthchecks.io: URL/start when a backup begins, URL when it is done, URL/fail when
// it failed.
type Ping struct {
	URL       string `yaml:"url"`
	URLSource string `yaml:"url_source"`
	CA        string `yaml:"ca"`
}
