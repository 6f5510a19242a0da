//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/cofferbackup/coffer/internal/bench/report"
)

// program is one of those that are compared. A program is used by one goroutine.
type program interface {
	name() string
	version(ctx context.Context) (string, error)
	// open makes an empty repository for c.
	open(ctx context.Context, c benchCase) error
	// do runs one step and returns what it took.
	do(ctx context.Context, s step) (report.Sample, error)
	// restoredTo is where the step restore puts the data of c.
	restoredTo() string
	// close ends what open started and removes everything that was made.
	close() error
	// commands are the lines that the steps run, for the reader of the table.
	commands() []string
}

// peer is restic or borg: programs that a command line runs to its end.
type peer struct {
	label   string
	path    string
	home    string // all that it writes is below
	data    string
	env     []string
	backups int
	lines   func(p *peer, s step, c benchCase) []string
	initial []string
	current benchCase
	ran     []string
}

func (p *peer) name() string       { return p.label }
func (p *peer) repo() string       { return filepath.Join(p.home, "repo") }
func (p *peer) target() string     { return filepath.Join(p.home, "restored") }
func (p *peer) restoredTo() string { return filepath.Join(p.target(), p.data) }
func (p *peer) close() error       { return os.RemoveAll(p.home) }
func (p *peer) commands() []string { return p.ran }

func (p *peer) version(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, p.path, p.versionFlag()).Output()
	words := strings.Fields(string(out))
	if err != nil || len(words) < 2 {
		return "", fmt.Errorf("%s: %w", p.path, err)
	}
	return p.label + " " + words[1], nil
}

func (p *peer) versionFlag() string {
	if p.label == "borg" {
		return "--version"
	}
	return "version"
}

func (p *peer) open(ctx context.Context, c benchCase) error {
	p.current, p.backups, p.ran = c, 0, nil
	if err := os.RemoveAll(p.home); err != nil {
		return err
	}
	if err := os.MkdirAll(p.home, 0o700); err != nil {
		return err
	}
	_, err := p.command(p.initial).run(ctx)
	return err
}

func (p *peer) do(ctx context.Context, s step) (report.Sample, error) {
	if s == restored {
		if err := os.MkdirAll(p.target(), 0o700); err != nil {
			return report.Sample{}, err
		}
	}
	cmd := p.command(p.lines(p, s, p.current))
	cmd.dir = p.target()
	if s != restored {
		cmd.dir = p.home
	}
	if s == oneFile {
		cmd.keep = filepath.Join(p.home, "one")
	}
	sample, err := cmd.run(ctx)
	if err != nil {
		return sample, err
	}
	sample.Stored, err = bytesIn(p.repo())
	return sample, err
}

func (p *peer) command(argv []string) command {
	p.ran = append(p.ran, strings.Join(argv, " "))
	return command{argv: append([]string{p.path}, argv[1:]...), env: p.env, dir: p.home}
}

// newRestic is restic as it comes: repository format 2, compression auto.
func newRestic(o options, c benchCase) *peer {
	home := filepath.Join(o.dir, "restic")
	repo := filepath.Join(home, "repo")
	return &peer{
		label: "restic", path: o.restic, home: home, data: dataDir(o, c),
		env:     []string{"RESTIC_PASSWORD=benchmark", "RESTIC_REPOSITORY=" + repo, "RESTIC_CACHE_DIR=" + filepath.Join(home, "cache")},
		initial: []string{"restic", "init", "--quiet"},
		lines: func(p *peer, s step, c benchCase) []string {
			switch s {
			case first, unchanged:
				return []string{"restic", "backup", "--quiet", p.data}
			case restored:
				return []string{"restic", "restore", "latest", "--quiet", "--target", p.target()}
			case verified:
				return []string{"restic", "check", "--quiet", "--read-data"}
			default:
				return []string{"restic", "dump", "latest", filepath.Join(p.data, c.path)}
			}
		},
	}
}

// newBorg is borg as it comes (lz4), with the cheaper of its two kinds of
// authenticated encryption on machines without SHA instructions.
func newBorg(o options, c benchCase) *peer {
	home := filepath.Join(o.dir, "borg")
	return &peer{
		label: "borg", path: o.borg, home: home, data: dataDir(o, c),
		env: []string{"BORG_PASSPHRASE=benchmark", "BORG_BASE_DIR=" + filepath.Join(home, "base"),
			"BORG_REPO=" + filepath.Join(home, "repo"), "LC_ALL=C.UTF-8"},
		initial: []string{"borg", "init", "--encryption", "repokey-blake2"},
		lines: func(p *peer, s step, c benchCase) []string {
			switch s {
			case first, unchanged:
				p.backups++
				return []string{"borg", "create", fmt.Sprintf("::point%d", p.backups), p.data}
			case restored:
				return []string{"borg", "extract", "--sparse", "::point1"}
			case verified:
				return []string{"borg", "check", "--verify-data"}
			default:
				return []string{"borg", "extract", "--stdout", "::point1", strings.TrimPrefix(filepath.Join(p.data, c.path), "/")}
			}
		},
	}
}
