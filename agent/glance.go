package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/cofferbackup/coffer/agent/fault"
)

// glance is how long a status waits for stores and keys, all of them together.
// Jobs are far more patient.
const glance = 10 * time.Second

// overdue returns err, or that what was asked is too slow for a glance: silent says
// who. The caller's own end stays what it is.
func overdue(ctx, glancing context.Context, err, silent error) error {
	if err == nil || glancing.Err() == nil || ctx.Err() != nil {
		return err
	}
	return fault.Of(fmt.Errorf("%w within %s: %v", silent, glance, err))
}
