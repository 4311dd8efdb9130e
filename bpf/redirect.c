/* One text for bcc: the loader puts the includes in place. */

#include <uapi/linux/bpf.h>

#include "lib/config.h"
#include "lib/types.h"
#include "lib/reports.h"
#include "lib/outcomes.h"
#include "lib/maps.h"
#include "lib/kernel.h"
#include "lib/capture.h"
#include "lib/outside.h"
#include "lib/choose.h"
#include "lib/flow.h"
#include "lib/admit.h"
#include "connect4.c"
#include "connect6.c"
#include "getpeername4.c"
#include "getpeername6.c"
#include "sockops.c"
#include "sock_release.c"
#include "sk_lookup.c"
