#include "vevents/vevents.h"
