//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cofferbackup/coffer/internal/bench/report"
)

// coffer is the pair of cofferd, which does the work, and the CLI that asks for
// it. What both use counts as one.
type coffer struct {
	label   string
	bin     string
	home    string
	data    string
	better  bool
	service *exec.Cmd
	log     *os.File
	current benchCase
	ran     []string
}

func newCoffer(o options, c benchCase, label string) *coffer {
	return &coffer{label: label, bin: o.bin, home: filepath.Join(o.dir, label), data: dataDir(o, c), better: label == "coffer-better"}
}

func (p *coffer) name() string       { return p.label }
func (p *coffer) vault() string      { return filepath.Join(p.home, "vault") }
func (p *coffer) target() string     { return filepath.Join(p.home, "restored") }
func (p *coffer) socket() string     { return filepath.Join(p.home, "coffer.sock") }
func (p *coffer) commands() []string { return p.ran }

func (p *coffer) version(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(p.bin, "coffer"), "version").Output()
	if err != nil {
		return "", fmt.Errorf("coffer version: %w", err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line, nil
}

// open starts cofferd on fresh state and makes a vault.
func (p *coffer) open(ctx context.Context, c benchCase) error {
	p.current, p.ran = c, nil
	if err := os.RemoveAll(p.home); err != nil {
		return err
	}
	if err := os.MkdirAll(p.vault(), 0o700); err != nil {
		return err
	}
	if err := p.configure(); err != nil {
		return err
	}
	if err := p.start(ctx); err != nil {
		return err
	}
	_, err := p.cli("vault", "create", "bench").run(ctx)
	return err
}

func (p *coffer) configure() error {
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	kek := filepath.Join(p.home, "kek.pem")
	if err := os.WriteFile(kek, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return err
	}
	extra := ""
	if p.better {
		extra = ", compression: better"
	}
	config := fmt.Sprintf(`agent: {state: %q, socket: %q}
keys:
  file: {uri: %q}
vaults:
  bench: {store: %q, keys: [file]%s}
items:
  data: {vault: bench, files: {paths: [%q]}}
`, filepath.Join(p.home, "state"), p.socket(), "file://"+kek, "file://"+p.vault(), extra, p.data)
	return os.WriteFile(p.config(), []byte(config), 0o600)
}

func (p *coffer) config() string { return filepath.Join(p.home, "coffer.yaml") }

// start starts cofferd and waits until it answers.
func (p *coffer) start(ctx context.Context) error {
	log, err := os.Create(filepath.Join(p.home, "cofferd.log"))
	if err != nil {
		return err
	}
	p.log = log
	p.service = exec.Command(filepath.Join(p.bin, "cofferd"), "run", "--config", p.config())
	p.service.Stdout, p.service.Stderr = log, log
	if err := p.service.Start(); err != nil {
		return fmt.Errorf("start cofferd: %w", err)
	}
	patience, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		_, err := p.cli("status").run(patience)
		if err == nil {
			return nil
		}
		if patience.Err() != nil {
			b, _ := os.ReadFile(log.Name())
			return fmt.Errorf("cofferd does not answer: %w: its log ends with %s", err, tail(string(b)))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (p *coffer) cli(args ...string) command {
	return command{argv: append([]string{filepath.Join(p.bin, "coffer"), "--socket", p.socket()}, args...), dir: p.home}
}

func (p *coffer) do(ctx context.Context, s step) (report.Sample, error) {
	cmd := p.cli(p.line(s)...)
	if s == oneFile {
		cmd.keep = filepath.Join(p.home, "one")
	}
	p.ran = append(p.ran, "coffer "+strings.Join(p.line(s), " "))
	pid := p.service.Process.Pid
	before, err := cpuOf(pid)
	if err != nil {
		return report.Sample{}, err
	}
	if err := resetPeak(pid); err != nil {
		return report.Sample{}, err
	}
	sample, err := cmd.run(ctx)
	if err != nil {
		return sample, err
	}
	after, err := cpuOf(pid)
	if err != nil {
		return sample, err
	}
	sample.CPU += after - before
	if sample.Peak, err = peakOf(pid); err != nil {
		return sample, err
	}
	sample.Stored, err = bytesIn(p.vault())
	return sample, err
}

func (p *coffer) line(s step) []string {
	switch s {
	case first, unchanged:
		return []string{"backup", "data"}
	case restored:
		return []string{"restore", "data", p.target()}
	case verified:
		return []string{"verify", "data"}
	default:
		return []string{"cat", "data", filepath.Join(p.data, p.current.path)}
	}
}

// restoredTo is the tree below the target that mirrors the path of the data.
func (p *coffer) restoredTo() string { return filepath.Join(p.target(), p.data) }

func (p *coffer) close() error {
	if p.service != nil && p.service.Process != nil {
		if err := p.service.Process.Signal(syscall.SIGTERM); err == nil {
			err = p.service.Wait()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return err
			}
		}
		p.service = nil
		if err := p.log.Close(); err != nil {
			return err
		}
	}
	return os.RemoveAll(p.home)
}
