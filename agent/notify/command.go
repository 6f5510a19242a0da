package notify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/notify/message"
)

// linger is how long a command may keep its pipes open through what it left running.
const linger = 2 * time.Second

// sendCommand runs a command with the notice on its standard input. Nothing of the
// agent's environment is in the command's but PATH: secrets may be in the rest.
func (n *Notifier) sendCommand(ctx context.Context, cfg config.Notify, m message.Notice) error {
	subject, err := n.text(cfg.Subject, message.DefaultSubject, m)
	if err != nil {
		return err
	}
	body, err := n.text(cfg.Body, message.DefaultBody, m)
	if err != nil {
		return err
	}
	said := &limited{most: maxAnswer}
	cmd := exec.CommandContext(ctx, cfg.Command[0], cfg.Command[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "COFFER_KIND=" + string(m.Kind), "COFFER_SUBJECT=" + oneLine(subject),
		"COFFER_HOST=" + m.Host, "COFFER_ITEM=" + m.Item, "COFFER_JOB=" + strconv.FormatInt(m.Job, 10)}
	if root := os.Getenv("SystemRoot"); root != "" { // no program of Windows starts without
		cmd.Env = append(cmd.Env, "SystemRoot="+root)
	}
	cmd.Dir = filepath.Dir(cfg.Command[0])
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(body), said, said
	cmd.WaitDelay = linger
	group(cmd)
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("command %s took longer than %s and was killed%s", cfg.Command[0], sendWait, quoted(said.text))
	case err != nil && !errors.Is(err, exec.ErrWaitDelay): // what it left running does not matter
		return fmt.Errorf("command %s: %w%s", cfg.Command[0], err, quoted(said.text))
	}
	return nil
}

// checkProgram tells whether a program can be run, and by whom it could be replaced.
func checkProgram(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if runtime.GOOS == "windows" {
		return nil
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular() || mode.Perm()&0o111 == 0:
		return fmt.Errorf("%s cannot be run: chmod 755 %s", path, path)
	case mode.Perm()&0o022 != 0:
		return fmt.Errorf("%s can be changed by others: chmod go-w %s", path, path)
	}
	return nil
}

// oneLine is a text without line ends and NULs.
func oneLine(text string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(text, "\x00", "")), " ")
}

// limited keeps the first bytes of what is written, and takes the rest.
type limited struct {
	most int
	text []byte
}

func (l *limited) Write(p []byte) (int, error) {
	l.text = append(l.text, p[:min(len(p), l.most-len(l.text))]...)
	return len(p), nil
}
